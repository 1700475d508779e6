//! The Unix socket: passed in by systemd, or made here with the right mode from its first moment on, and never in another daemon's place.

use super::config::Serve;
use rustix::fs::{FlockOperation, Gid, Mode, OFlags, chown, flock, open as open_file};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Longest path that the kernel binds a socket to (`sun_path` in unix(7), less its end).
const ADDRESS_BYTES_MAX: usize = 107;
/// For the daemon's user and the group.
const MODE: u32 = 0o660;

#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    #[error("the sockets passed in by systemd can't be used: {0}; hearthd.socket should have one ListenStream= with a path")]
    Passed(io::Error),
    #[error("{path}: another daemon answers here; stop it, or set `serve.socket` to another path")]
    Taken { path: PathBuf },
    #[error("{path}: is there and is no socket; remove it, or set `serve.socket` to another path")]
    NoSocket { path: PathBuf },
    #[error("{path}: the socket can't be made: {source}; its folder must exist and belong to the daemon's user")]
    Make { path: PathBuf, source: io::Error },
    #[error("{path}: the path is {excess} bytes too long for a socket; set `serve.socket` to a shorter one")]
    Long { path: PathBuf, excess: usize },
    #[error("{path}: the socket can't be given to the group `{group}`: {source}; the daemon's user must be its member")]
    Group { path: PathBuf, group: String, source: io::Error },
    #[error("`serve.group`: there is no group `{0}`")]
    NoGroup(String),
}

/// The listening sockets, and what has to go when they close.
#[derive(Debug)]
pub struct Sockets {
    pub listeners: Vec<UnixListener>,
    made: Option<Made>,
}

/// A socket file of our own.
#[derive(Debug)]
struct Made {
    path: PathBuf,
    /// Tells our file from one that somebody put in its place.
    inode: u64,
    /// Held as long as we live: whoever has it may replace a socket that was left behind.
    _lock: OwnedFd,
}

pub fn open(config: &Serve) -> Result<Sockets, SocketError> {
    let passed = passed().map_err(SocketError::Passed)?;
    if !passed.is_empty() {
        return Ok(Sockets { listeners: passed, made: None });
    }
    let (listener, made) = make(&config.socket, config.group.as_deref())?;
    Ok(Sockets { listeners: vec![listener], made: Some(made) })
}

impl Sockets {
    /// Takes the socket's file away, if it is still ours.
    pub fn remove(&self) {
        let Some(made) = &self.made else { return };
        if fs::symlink_metadata(&made.path).is_ok_and(|m| m.ino() == made.inode) {
            let _ = fs::remove_file(&made.path); // left behind it does no harm: the next start replaces it
        }
    }
}

fn passed() -> io::Result<Vec<UnixListener>> {
    let mut passed = listenfd::ListenFd::from_env();
    (0..passed.len()).filter_map(|i| passed.take_unix_listener(i).transpose()).collect()
}

/// Binds beside the path and renames, so that the socket is never there with a wrong mode or without a listener.
fn make(path: &Path, group: Option<&str>) -> Result<(UnixListener, Made), SocketError> {
    let failed = |source: io::Error| SocketError::Make { path: path.into(), source };
    let new = path.with_added_extension("new");
    if let Some(excess) = new.as_os_str().len().checked_sub(ADDRESS_BYTES_MAX).filter(|n| *n > 0) {
        return Err(SocketError::Long { path: path.into(), excess });
    }
    let lock = lock(path)?;
    check_place(path)?;
    match fs::remove_file(&new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
        _ => {}
    }
    let listener = UnixListener::bind(&new).map_err(failed)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(MODE)).map_err(failed)?;
    if let Some(group) = group {
        let refused = |e: rustix::io::Errno| SocketError::Group { path: path.into(), group: group.into(), source: e.into() };
        chown(&new, None, Some(group_id(group)?)).map_err(refused)?;
    }
    let inode = fs::symlink_metadata(&new).map_err(failed)?.ino();
    fs::rename(&new, path).map_err(failed)?;
    Ok((listener, Made { path: path.into(), inode, _lock: lock }))
}

/// Two daemons that start at once must not both find the place free.
fn lock(path: &Path) -> Result<OwnedFd, SocketError> {
    let failed = |e: rustix::io::Errno| SocketError::Make { path: path.into(), source: e.into() };
    let file = open_file(path.with_added_extension("lock"), OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR);
    let file = file.map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(SocketError::Taken { path: path.into() }),
        Err(e) => Err(failed(e)),
    }
}

/// A socket that nobody answers was left behind by a daemon that died; anything else is not ours to remove.
fn check_place(path: &Path) -> Result<(), SocketError> {
    match fs::symlink_metadata(path) {
        Err(_) => Ok(()),
        Ok(meta) if !meta.file_type().is_socket() => Err(SocketError::NoSocket { path: path.into() }),
        Ok(_) => match UnixStream::connect(path) {
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
            _ => Err(SocketError::Taken { path: path.into() }),
        },
    }
}

/// By number, or by name from /etc/group.
fn group_id(group: &str) -> Result<Gid, SocketError> {
    let by_name = || {
        let groups = fs::read_to_string("/etc/group").ok()?;
        let fields = groups.lines().map(|l| l.split(':').collect::<Vec<_>>()).find(|f| f.first() == Some(&group))?;
        fields.get(2)?.parse().ok()
    };
    group.parse().ok().or_else(by_name).map(Gid::from_raw).ok_or_else(|| SocketError::NoGroup(group.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(path: &Path) -> Result<(UnixListener, Made), SocketError> {
        make(path, None)
    }

    #[test]
    fn a_socket_left_behind_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        let (_listener, made) = at(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        UnixStream::connect(&path).unwrap();
        Sockets { listeners: vec![], made: Some(made) }.remove();
        assert!(!path.exists());
    }

    #[test]
    fn a_living_daemons_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let first = at(&path).unwrap();
        assert!(matches!(at(&path), Err(SocketError::Taken { .. })));
        drop(first);
        let foreign = folder.path().join("foreign");
        let _listener = UnixListener::bind(&foreign).unwrap();
        assert!(matches!(at(&foreign), Err(SocketError::Taken { .. })));
    }

    #[test]
    fn a_file_that_is_no_socket_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(at(&path), Err(SocketError::NoSocket { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn a_path_may_be_as_long_as_the_kernel_takes_and_no_longer() {
        let folder = tempfile::tempdir().unwrap();
        let of = |bytes: usize| folder.path().join("s".repeat(bytes - folder.path().as_os_str().len() - "/".len()));
        let most = ADDRESS_BYTES_MAX - ".new".len();
        at(&of(most)).unwrap();
        let told = at(&of(most + 2)).unwrap_err().to_string();
        assert!(told.contains("is 2 bytes too long"), "{told}");
    }

    #[test]
    fn an_unknown_group_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = make(&folder.path().join("s"), Some("no-such-group-here")).unwrap_err();
        assert!(error.to_string().contains("no-such-group-here"), "{error}");
    }
}
