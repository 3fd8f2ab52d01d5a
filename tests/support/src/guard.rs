//! Ends the servers of tests that were interrupted: no `drop` runs after `kill -9`, nor for static values.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

/// Reads lines: the id of a process that has to end, or an empty one when it has ended. The input ends
/// with the process that writes it. A server that is suspended continues first, and has a second to remove
/// its shared memory. The removal is repeated while a child of the process still writes.
const SCRIPT: &str = r#"
pid=
while read -r line; do pid=$line; done
if [ -n "$pid" ]; then
  all="$pid $(cat "/proc/$pid/task/$pid/children")"
  kill -CONT $all
  kill -QUIT "$pid"
  sleep 1
  kill -KILL $all
fi
for _ in 1 2 3 4 5; do
  rm -rf "$1" && break
  sleep 1
done
"#;

/// A shell that waits for the end of this process, however it ends. Then it ends the server, and
/// removes the server's directory.
pub struct ServerGuard {
    shell: Child,
    input: Option<ChildStdin>,
}

impl ServerGuard {
    pub fn of(dir: &Path) -> Self {
        let mut shell = Command::new("sh")
            .args(["-c", SCRIPT, "sh"])
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C ends the tests, and not their guards.
            .process_group(0)
            .spawn()
            .unwrap();
        let input = shell.stdin.take();
        Self { shell, input }
    }

    /// Notes that the server runs as this process.
    pub fn server_runs(&mut self, pid: u32) {
        self.write(&pid.to_string());
    }

    /// Notes that the server has ended.
    pub fn server_ended(&mut self) {
        self.write("");
    }

    fn write(&mut self, line: &str) {
        let input = self.input.as_mut().expect("it is open until the drop");
        let _ = input.write_all(format!("{line}\n").as_bytes());
    }
}

impl Drop for ServerGuard {
    fn drop(&mut self) {
        self.input = None;
        let _ = self.shell.wait();
    }
}
