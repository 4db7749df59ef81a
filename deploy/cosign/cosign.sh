#!/bin/sh
# One turn of an outside witness: the topic still holds what was cosigned the last time; what came since
# is complete and unaltered; that is cosigned. Run it often from a machine that those who run Weir cannot
# reach, see docs/reference/audit-spool.md. Ends with 0, or with 8 when the log is not what it was.
#
#   WEIR_URL, WEIR_TOKEN   the control plane, and an operator's token that may read
#   COSIGN_KAFKA           brokers, or the YAML file of the setting `audit.kafka`
#   COSIGN_DIR             where key, cosigned states and the public key (`cosigner`) are kept
#   COSIGN_AS              the witness's name: auditor.example
set -eu
umask 077
: "${COSIGN_KAFKA:?}" "${COSIGN_DIR:?}" "${COSIGN_AS:?}"
mkdir -p "$COSIGN_DIR"
cd "$COSIGN_DIR"
if [ -e newest.json ]; then
  weir audit verify --kafka "$COSIGN_KAFKA" --witness newest.json --cosigner "$(cat cosigner)"
fi
weir audit witness >seen.json
# The topic may be some seconds behind what was witnessed.
sleep "${COSIGN_WAIT:-10}"
weir audit verify --kafka "$COSIGN_KAFKA" --witness seen.json \
  --cosign-key key --cosign-as "$COSIGN_AS" --cosigned next.json | tee said
grep -o "$COSIGN_AS+[0-9a-f]*+[A-Za-z0-9+/=]*" said | head -n 1 >cosigner
cp next.json "cosigned-$(date -u +%Y%m%dT%H%M%SZ).json"
mv next.json newest.json
