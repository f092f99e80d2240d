//! A Python environment with the packages that `requirements.txt` in a folder pins, made once.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use tokio::process::Command;

use crate::support::within;

/// Makes the environment of `folder` and returns its `python`, or `None` after saying that Python is missing.
pub async fn environment(folder: &str) -> Option<PathBuf> {
    within(600, "a Python environment", make(folder)).await
}

async fn make(folder: &str) -> Option<PathBuf> {
    let requirements = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join("requirements.txt");
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-python", folder.replace('/', "-")));
    fs::create_dir_all(&home).unwrap();
    // Another test process may be at it: whoever comes second finds everything in place.
    let lock = fs::File::create(home.join("lock")).unwrap();
    let _held = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await.unwrap().unwrap();
    let python = home.join("venv/bin/python");
    let wanted = fs::read_to_string(&requirements).unwrap();
    let installed = home.join("installed");
    // Run, not only looked for: the interpreter it was made with may be gone.
    let runs = output(Command::new(&python).arg("--version")).await.is_ok_and(|output| output.status.success());
    if runs && fs::read_to_string(&installed).is_ok_and(|found| found == wanted) {
        return Some(python);
    }
    let made = output(Command::new("python3").args(["-m", "venv", "--clear"]).arg(home.join("venv"))).await;
    let wrong = match made {
        Ok(made) if made.status.success() => None,
        Ok(made) => Some(String::from_utf8_lossy(&made.stdout).into_owned() + &String::from_utf8_lossy(&made.stderr)),
        Err(error) => Some(error.to_string()),
    };
    if let Some(wrong) = wrong {
        assert!(
            std::env::var_os("CI").is_none(),
            "`python3 -m venv` failed ({wrong}) and under CI no test may be skipped"
        );
        eprintln!("skipped: `python3 -m venv` failed ({wrong})");
        return None;
    }
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--requirement"]);
    let pip = output(pip.arg(&requirements)).await.unwrap();
    assert!(pip.status.success(), "pip install failed: {}", String::from_utf8_lossy(&pip.stderr));
    fs::write(installed, wanted).unwrap();
    Some(python)
}

async fn output(command: &mut Command) -> std::io::Result<Output> {
    command.stdin(Stdio::null()).kill_on_drop(true).output().await
}
