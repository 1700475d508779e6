//! A board that is played beside the daemon: its files, its commands, and a load that makes it warm.

use crate::house::House;
use crate::process::{DEADLINE, InTime, POLL};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;
use tempfile::TempDir;

pub struct Board {
    play: Child,
    commands: ChildStdin,
    answers: BufReader<InTime<ChildStdout>>,
    pub root: PathBuf,
    _folder: TempDir,
}

impl Board {
    /// One thread of a daemon means all its cores.
    pub fn play(board: &str, ambient: f32, speed: f32) -> Board {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("board");
        let mut command = Command::new(env!("CARGO_BIN_EXE_hearth"));
        command.args(["board", "play", board, "--threads", "1", "--ambient", &ambient.to_string(), "--speed", &speed.to_string()]);
        let mut play = command.arg(&root).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (commands, answers) = (play.stdin.take().unwrap(), BufReader::new(InTime(play.stdout.take().unwrap())));
        let mut board = Board { play, commands, answers, root, _folder: folder };
        // Answered once the tree is there.
        board.tell(&format!("ambient {ambient}"));
        board
    }

    pub fn tell(&mut self, command: &str) {
        writeln!(self.commands, "{command}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        assert_eq!(answer.trim(), "ok", "{command}");
    }

    pub fn watch(&mut self, house: &House) {
        self.tell(&format!("watch {}", house.daemon.id()));
    }

    /// Lines of `[governor]` for a daemon on it.
    pub fn governor(&self, policy: &str) -> String {
        format!("policy = \"{policy}\"\nroot = \"{}\"", self.root.display())
    }

    pub fn read(&self, file: &str) -> String {
        fs::read_to_string(self.root.join(file)).unwrap().trim().to_owned()
    }

    /// The clock's limit of a policy in kHz. (Unlike the kernel's, this file is empty while it is written.)
    pub fn limit(&self, policy: &str) -> u64 {
        let file = format!("sys/devices/system/cpu/cpufreq/{policy}/scaling_max_freq");
        let began = Instant::now();
        loop {
            match self.read(&file).parse() {
                Ok(khz) => return khz,
                Err(_) => assert!(began.elapsed() < DEADLINE, "{file}: no number comes"),
            }
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        let _ = self.play.kill();
        let _ = self.play.wait();
    }
}

/// Keeps a daemon busy, one long answer after the other, until it is dropped.
pub struct Load {
    over: Arc<AtomicBool>,
    under_way: Arc<Mutex<Option<UnixStream>>>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    pub fn on(house: &House) -> Load {
        let (over, under_way) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(None)));
        let (seen, shown, socket) = (over.clone(), under_way.clone(), house.socket.clone());
        let body = r#"{"messages":[{"role":"user","content":"on and on"}],"stream":true,"ignore_eos":true}"#;
        let request =
            format!("POST /v1/chat/completions HTTP/1.1\r\nHost: l\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let work = move || {
            while !seen.load(Relaxed) {
                let Ok(mut stream) = UnixStream::connect(&socket) else { return };
                *shown.lock().unwrap() = stream.try_clone().ok();
                let _ = stream.write_all(request.as_bytes()); // a daemon that is gone is met at the next connect
                let mut rest = [0; 4096];
                while !seen.load(Relaxed) && stream.read(&mut rest).is_ok_and(|n| n > 0) {}
            }
        };
        Load { over, under_way, thread: Some(std::thread::spawn(work)) }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
        if let Some(stream) = self.under_way.lock().unwrap().take() {
            let _ = stream.shutdown(Shutdown::Both); // it may have ended by itself
        }
        let _ = self.thread.take().unwrap().join();
    }
}
