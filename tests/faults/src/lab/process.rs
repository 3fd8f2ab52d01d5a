//! A process that the lab started: its signals, its memory, its exit.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};

/// A child process. Killed when dropped.
pub struct Process {
    child: std::process::Child,
}

impl Process {
    /// Starts a command. Its output is appended to the log file.
    pub fn start(command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)?;
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        let child = command
            .spawn()
            .with_context(|| format!("can't start {:?}", command.get_program()))?;
        Ok(Self { child })
    }

    fn signal(&self, signal: Signal) {
        send(self.child.id(), signal);
    }

    /// Kills the process (SIGKILL), and waits for its exit.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Requests the process to exit (SIGTERM).
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    pub fn has_exited(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// SIGSTOP.
    pub fn suspend(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Suspends the process and its children. The process first: it starts no further ones then.
    pub fn suspend_tree(&self) {
        self.suspend();
        self.signal_children(Signal::STOP);
    }

    /// Lets the process and its children continue.
    pub fn resume_tree(&self) {
        self.signal_children(Signal::CONT);
        self.resume();
    }

    /// Kills the process and its children, and waits for the exit of all of them.
    pub fn kill_tree(&mut self) {
        self.suspend();
        let children = self.children();
        for child in &children {
            send(*child, Signal::KILL);
        }
        self.kill();
        while children.iter().any(|child| is_alive(*child)) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn signal_children(&self, signal: Signal) {
        for child in self.children() {
            send(child, signal);
        }
    }

    fn children(&self) -> Vec<u32> {
        let id = self.child.id();
        let path = format!("/proc/{id}/task/{id}/children");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.split_whitespace()
            .filter_map(|child| child.parse().ok())
            .collect()
    }

    /// The resident memory, in KB.
    pub fn memory_kb(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|text| text.trim().trim_end_matches(" kB").parse().ok())
            .unwrap_or(0)
    }
}

fn send(id: u32, signal: Signal) {
    let pid = i32::try_from(id).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It fails only if the process has already exited.
        let _ = kill_process(pid, signal);
    }
}

/// Whether a process runs. One that has exited, and that its parent has not noticed yet, does not.
fn is_alive(id: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    // "id (name) state …", and the name may contain anything.
    let state = stat
        .rsplit(") ")
        .next()
        .and_then(|rest| rest.chars().next());
    state.is_some_and(|state| state != 'Z' && state != 'X')
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
