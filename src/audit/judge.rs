//! `weir audit verify`, `prove` and `check`.

use std::io::{Read as _, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use weir_audit::line;
use weir_audit::note::{Note, Signer, Verifier};
use weir_audit::proof::Proof;
use weir_audit::verify::{Report, Summary, Trust, Verification};

use super::Ask;
use super::source::Input;
use crate::cli::{AuditCheck, AuditProve, AuditVerify, Trusted};
use crate::exit::{Ended, Exit};

/// Longest proof that is read.
const PROOF_BYTES_MAX: u64 = 1024 * 1024;

/// What a control plane has witnessed.
#[derive(Debug, Serialize, Deserialize)]
struct Witness {
    /// Its public key.
    authority: String,
    /// Signed notes.
    checkpoints: Vec<String>,
    /// What else the control plane says.
    #[serde(flatten)]
    more: serde_json::Map<String, serde_json::Value>,
}

impl Trusted {
    fn authority(&self) -> anyhow::Result<Option<Verifier>> {
        let parse = |text: &String| text.parse().context("--trust");
        self.trust.as_ref().map(parse).transpose()
    }
}

/// Judges everything up to now.
pub(super) fn verify(args: &AuditVerify, ask: Ask<'_>, out: &mut impl Write) -> anyhow::Result<()> {
    let mut witness = match (&args.witness, args.ask) {
        (Some(path), _) => {
            let text = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
            Some(serde_json::from_slice::<Witness>(&text).context("--witness")?)
        }
        (None, true) => Some(serde_json::from_value(ask()?).context("the witness's answer")?),
        (None, false) => None,
    };
    let nodes = args.nodes.clone();
    let mut trust = Trust { authority: args.trusted.authority()?, nodes, ..Trust::default() };
    for cosigner in &args.cosigners {
        let cosigner: Verifier = cosigner.parse().context("--cosigner")?;
        trust.cosigners.push(cosigner.cosigner());
    }
    if let Some(witness) = &witness {
        let authority: Verifier = witness.authority.parse().context("the witness's key")?;
        if trust.authority.as_ref().is_some_and(|trusted| *trusted != authority) {
            anyhow::bail!("the witness is another control plane than --trust names");
        }
        trust.authority = Some(authority);
        let note = |text: &String| text.parse::<Note>().context("a witnessed checkpoint");
        trust.witnessed = witness.checkpoints.iter().map(note).collect::<Result<_, _>>()?;
    }
    let input = Input::open(&args.source)?;
    let mut verification = Verification::new(input.order(), trust);
    let mut looked = Instant::now();
    let every = args.every.map(Duration::from_secs);
    input.each(&mut |bytes, place| {
        verification.line_of(place.cut(), bytes, &place);
        if every.is_some_and(|every| looked.elapsed() >= every) {
            so_far(&verification.so_far(), out)?;
            looked = Instant::now();
        }
        Ok(())
    })?;
    let report = verification.finish();
    show(&report, out)?;
    good(&report)?;
    if report.epochs.is_empty() {
        anyhow::bail!("there are no records");
    }
    if let Some(witness) = &mut witness {
        cosign(args, witness, out)?;
    }
    Ok(())
}

fn good(report: &Report) -> anyhow::Result<()> {
    let Some(first) = report.findings.first() else { return Ok(()) };
    let message = format!("{} findings; the first: {first}", report.findings.len());
    Err(Ended::new(Exit::Tampered, message).into())
}

/// One line while more comes; everything when something is wrong.
fn so_far(report: &Report, out: &mut impl Write) -> anyhow::Result<()> {
    if !report.is_good() {
        show(report, out)?;
        return good(report);
    }
    let read = |epoch: &Summary| (epoch.records.1 + 1).saturating_sub(epoch.records.0.max(1));
    let records: u64 = report.epochs.iter().map(read).sum();
    let epochs = report.epochs.len();
    writeln!(out, "so far {records} records of {epochs} epochs: complete and unaltered")?;
    Ok(out.flush()?)
}

fn show(report: &Report, out: &mut impl Write) -> anyhow::Result<()> {
    for finding in &report.findings {
        writeln!(out, "WRONG  {finding}")?;
    }
    for note in &report.notes {
        writeln!(out, "note   {note}")?;
    }
    for epoch in &report.epochs {
        let (first, last) = epoch.records;
        write!(out, "epoch  {}/{}: records {first} to {last}", epoch.node, epoch.epoch)?;
        match epoch.signed >= last {
            true => write!(out, ", all signed for")?,
            false => write!(out, ", signed for up to {}", epoch.signed)?,
        }
        if epoch.before > 0 {
            write!(out, ", {} before the first checkpoint", epoch.before)?;
        }
        if epoch.lost > 0 {
            write!(out, ", {} lost and counted", epoch.lost)?;
        }
        if epoch.repeats > 0 {
            write!(out, ", {} delivered again", epoch.repeats)?;
        }
        writeln!(out, "{}", if epoch.ended { ", ended" } else { ", goes on" })?;
    }
    let verdict = if report.is_good() { "complete and unaltered" } else { "NOT AS SIGNED" };
    Ok(writeln!(out, "{verdict}")?)
}

/// What held is cosigned, for others to demand.
fn cosign(args: &AuditVerify, witness: &mut Witness, out: &mut impl Write) -> anyhow::Result<()> {
    let (Some(key), Some(name), Some(into)) = (&args.cosign_key, &args.cosign_as, &args.cosigned)
    else {
        return Ok(());
    };
    let signer = Signer::load_or_make(key)?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    for text in &mut witness.checkpoints {
        let mut note: Note = text.parse()?;
        signer.cosign(name, &mut note, now)?;
        *text = note.to_string();
    }
    let text = serde_json::to_string_pretty(&witness)?;
    std::fs::write(into, text).with_context(|| format!("write {}", into.display()))?;
    let public = signer.verifier(name).context("--cosign-as")?.cosigner();
    Ok(writeln!(out, "cosigned as {public}")?)
}

/// Exports one record with its proof.
pub(super) fn prove(args: &AuditProve, out: &mut impl Write) -> anyhow::Result<()> {
    let id = line::event_id(&args.record).context("give the record as NODE/EPOCH/SEQUENCE")?;
    let input = Input::open(&args.source)?;
    let trust = Trust { authority: args.trusted.authority()?, ..Trust::default() };
    let mut verification = Verification::new(input.order(), trust);
    verification.want(id);
    input.each(&mut |bytes, place| {
        verification.line_of(place.cut(), bytes, &place);
        Ok(())
    })?;
    let proof = verification.prove();
    let proof =
        proof.map_err(|why| Ended::new(Exit::NotFound, format!("{}: {why}", args.record)))?;
    Ok(write!(out, "{proof}")?)
}

/// Checks a proof and shows the record.
pub(super) fn check(args: &AuditCheck, out: &mut impl Write) -> anyhow::Result<()> {
    let wrong = |error: &dyn std::fmt::Display| Ended::new(Exit::Tampered, error.to_string());
    let proof: Proof = read(&args.proof)?.parse().map_err(|error| wrong(&error))?;
    let authority = args.trusted.authority()?;
    let checkpoint = proof.check(authority.as_ref()).map_err(|error| wrong(&error))?;
    out.write_all(&proof.record)?;
    let head = checkpoint.head;
    writeln!(out, "\nrecord {} of {} in {}", proof.index + 1, head.size, checkpoint.origin())?;
    if authority.is_none() {
        writeln!(
            out,
            "note   whose key signed it is not checked: name a control plane by --trust"
        )?;
    }
    Ok(writeln!(out, "the proof holds")?)
}

fn read(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = match path.as_os_str() == "-" {
        true => std::io::stdin().lock().take(PROOF_BYTES_MAX).read_to_string(&mut text),
        false => std::fs::File::open(path)
            .and_then(|file| file.take(PROOF_BYTES_MAX).read_to_string(&mut text)),
    };
    read.with_context(|| format!("read {}", path.display()))?;
    Ok(text)
}
