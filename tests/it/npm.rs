//! npm projects in folders of this one, installed once as their lock file says, and run with the Node.js they bring.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::{io::AsyncWriteExt as _, process::Command};

use crate::support::within;

/// An installed project.
pub struct Project {
    pub home: PathBuf,
}

impl Project {
    /// Installs the project in `folder`, or returns `None` after saying that npm is missing.
    pub async fn install(folder: &str) -> Option<Project> {
        let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(folder.replace('/', "-"));
        within(600, "npm ci", install(folder, &home)).await.then_some(Project { home })
    }

    /// Returns the command that runs one of the project's scripts.
    pub fn script(&self, name: &str) -> Command {
        let mut script = Command::new(self.home.join("node_modules/.bin/node"));
        script.arg(name).current_dir(&self.home);
        script
    }
}

/// Copies the scripts to `home` and installs what the lock file names, unless that is installed already.
async fn install(folder: &str, home: &Path) -> bool {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    fs::create_dir_all(home).unwrap();
    // Another test process may be installing: whoever comes second finds everything in place.
    let lock = fs::File::create(home.join("lock")).unwrap();
    let _held = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await.unwrap().unwrap();
    copy(&scripts, home);
    let wanted = fs::read_to_string(scripts.join("package-lock.json")).unwrap();
    let installed = home.join("installed");
    if fs::read_to_string(&installed).is_ok_and(|found| found == wanted) {
        return true;
    }
    let npm = Command::new("npm").arg("ci").current_dir(home).stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = match npm {
        Ok(output) => output,
        Err(error) => {
            assert!(
                std::env::var_os("CI").is_none(),
                "npm cannot be run ({error}) and under CI no test may be skipped"
            );
            eprintln!("skipped: npm cannot be run ({error})");
            return false;
        }
    };
    assert!(output.status.success(), "npm ci failed: {}", String::from_utf8_lossy(&output.stderr));
    fs::write(installed, wanted).unwrap();
    true
}

/// Copies one folder into another, but not what npm installed there. What is in place is not touched: it may be running.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap().map(Result::unwrap).filter(|file| file.file_name() != "node_modules") {
        let (path, copied) = (file.path(), to.join(file.file_name()));
        if path.is_dir() {
            copy(&path, &copied);
        } else if fs::read(&copied).ok() != fs::read(&path).ok() {
            fs::copy(path, copied).unwrap();
        }
    }
}

/// Runs `script` with `input` to its end and returns its standard output; anything but success is a failure of the test.
pub async fn run(script: &mut Command, input: &str) -> String {
    let script = script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = script.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A script that needs no input may have closed it already.
    let write = async move { drop(stdin.write_all(input.as_bytes()).await) };
    let ((), output) = tokio::join!(write, child.wait_with_output());
    let output = output.unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{told}\n{}", String::from_utf8_lossy(&output.stderr));
    told
}
