// Checks an audit log and a proof of one record with the packages of Go's checksum database:
// nothing here is Weir's but the names of JSON members.
//
//	foreign log FOLDER       every checkpoint of every epoch against the records
//	foreign proof FILE       one proof, which shows no other record
package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type event struct {
	Metadata struct {
		UID     string `json:"uid"`
		LogName string `json:"log_name"`
	} `json:"metadata"`
	Unmapped struct {
		Note string `json:"note"`
		Key  []byte `json:"key"`
	} `json:"unmapped"`
}

// A tree that keeps every hash, as tlog wants it.
type tree struct {
	size   int64
	hashes []tlog.Hash
}

func (t *tree) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		if index >= int64(len(t.hashes)) {
			return nil, errors.New("no such hash")
		}
		out[i] = t.hashes[index]
	}
	return out, nil
}

func (t *tree) add(record []byte) error {
	hashes, err := tlog.StoredHashes(t.size, record, t)
	if err != nil {
		return err
	}
	t.hashes = append(t.hashes, hashes...)
	t.size++
	return nil
}

// open checks the signature of a checkpoint and gives its origin, size and root.
func open(text string, key []byte) (string, int64, tlog.Hash, error) {
	var root tlog.Hash
	origin, _, _ := strings.Cut(text, "\n")
	public, err := note.NewEd25519VerifierKey(origin, key)
	if err != nil {
		return "", 0, root, err
	}
	verifier, err := note.NewVerifier(public)
	if err != nil {
		return "", 0, root, err
	}
	opened, err := note.Open([]byte(text), note.VerifierList(verifier))
	if err != nil {
		return "", 0, root, err
	}
	lines := strings.Split(opened.Text, "\n")
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return "", 0, root, err
	}
	sum, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || len(sum) != len(root) {
		return "", 0, root, errors.New("root")
	}
	copy(root[:], sum)
	return origin, size, root, nil
}

func checkLog(folder string) error {
	files, err := filepath.Glob(filepath.Join(folder, "audit-*.jsonl"))
	if err != nil {
		return err
	}
	trees := map[string]*tree{}
	checkpoints := 0
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		lines := bufio.NewScanner(bytes.NewReader(content))
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var e event
			if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
				return err
			}
			switch e.Metadata.LogName {
			case "weir.audit":
				epoch := "weir.audit/" + e.Metadata.UID[:strings.LastIndex(e.Metadata.UID, "/")]
				if trees[epoch] == nil {
					trees[epoch] = &tree{}
				}
				if err := trees[epoch].add(lines.Bytes()); err != nil {
					return err
				}
			case "weir.audit.checkpoint":
				origin, size, root, err := open(e.Unmapped.Note, e.Unmapped.Key)
				if err != nil {
					return err
				}
				known := trees[origin]
				if known == nil || known.size < size {
					return fmt.Errorf("%s: fewer records than %d", origin, size)
				}
				is, err := tlog.TreeHash(size, known)
				if err != nil {
					return err
				}
				if is != root {
					return fmt.Errorf("%s: another root at %d", origin, size)
				}
				checkpoints++
			}
		}
	}
	fmt.Printf("%d epochs, %d checkpoints\n", len(trees), checkpoints)
	return nil
}

func checkProof(file string) error {
	content, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	head, checkpoint, found := strings.Cut(string(content), "\n\n")
	lines := strings.Split(head, "\n")
	if !found || len(lines) < 3 || lines[0] != "c2sp.org/tlog-proof@v1" {
		return errors.New("not a tlog-proof")
	}
	extra, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(lines[1], "extra "))
	if err != nil {
		return err
	}
	var with struct {
		Record string `json:"record"`
		Key    []byte `json:"key"`
	}
	if err := json.Unmarshal(extra, &with); err != nil {
		return err
	}
	index, err := strconv.ParseInt(strings.TrimPrefix(lines[2], "index "), 10, 64)
	if err != nil {
		return err
	}
	var proof tlog.RecordProof
	for _, line := range lines[3:] {
		hash, err := tlog.ParseHash(line)
		if err != nil {
			return err
		}
		proof = append(proof, hash)
	}
	origin, size, root, err := open(checkpoint, with.Key)
	if err != nil {
		return err
	}
	if err := tlog.CheckRecord(proof, size, root, index, tlog.RecordHash([]byte(with.Record))); err != nil {
		return err
	}
	fmt.Printf("record %d of %d in %s\n", index+1, size, origin)
	return nil
}

func main() {
	check := map[string]func(string) error{"log": checkLog, "proof": checkProof}
	if len(os.Args) != 3 || check[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: foreign log FOLDER | foreign proof FILE")
		os.Exit(2)
	}
	if err := check[os.Args[1]](os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
