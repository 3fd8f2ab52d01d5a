//! The fault lab: breaks a running cluster on purpose, and checks what its clients saw.

mod checker;
mod history;

fn main() -> anyhow::Result<()> {
    let path = std::env::args().nth(1).unwrap_or_default();
    let verdict = checker::check(&history::read(path.as_ref())?);
    anyhow::ensure!(verdict.faults.is_empty(), "{:#?}", verdict.faults);
    Ok(())
}
