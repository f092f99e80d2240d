//! Any configuration file, catalogue and variable: read or refused, and no problem, warning or `Debug` quotes a secret.
#![no_main]

use std::{cell::RefCell, collections::BTreeMap, io::Write};

use herald::{
    config::{Inputs, Problems, examine},
    domain::catalogue::Catalogue,
};
use libfuzzer_sys::fuzz_target;

const CANARY: &str = "c4n4ry";
/// Secrets and URLs, by variable and by section and key.
const SECRETS: [(&str, &str, &str); 7] = [
    ("AMQP_URL", "broker", "url"),
    ("HERALD_BROKER__MANAGEMENT_URL", "broker", "management_url"),
    ("ABLY_API_KEY", "ably", "key"),
    ("EXPO_ACCESS_TOKEN", "expo", "access_token"),
    ("DATABASE_URL", "users", "url"),
    ("HERALD_STORE__URL", "store", "url"),
    ("HERALD_HTTP__TOKEN", "http", "token"),
];

thread_local! {
    static FILE: RefCell<tempfile::NamedTempFile> = RefCell::new(tempfile::NamedTempFile::new().expect("a file"));
}

fuzz_target!(|input: (u8, bool, &str, &str, &str)| {
    let (which, in_file, secret, name, toml) = input;
    let (variable, section, key) = SECRETS[usize::from(which) % SECRETS.len()];
    // A value beside the canary, so that every form of a URL is tried; line ends would make a second value of it.
    let secret = format!("{}{CANARY}{}", secret, secret.len()).replace(['\n', '\r', '\'', '\0'], "");
    let mut env = BTreeMap::new();
    let text = if in_file {
        format!("[{section}]\n{key} = '''{secret}'''\n{toml}")
    } else {
        env.insert(variable.to_owned(), secret);
        toml.to_owned()
    };
    // Paths from the environment would lead the fuzzer to files of this machine.
    if !name.ends_with("_FILE") && !name.contains(CANARY) {
        env.entry(format!("HERALD_{name}")).or_insert_with(|| toml.to_owned());
    }
    env.remove("HERALD_CONFIG");
    FILE.with_borrow_mut(|file| {
        file.as_file().set_len(0).expect("truncated");
        std::io::Seek::rewind(file).expect("rewound");
        file.write_all(text.as_bytes()).expect("written");
        let inputs = Inputs { file: Some(file.path().to_owned()), env, ..Inputs::default() };
        let (loaded, problems) = examine(&inputs);
        let told = format!("{loaded:?} {:?} {}", problems, Problems(problems.clone()));
        assert!(!told.contains(CANARY), "{told}");
    });
    let _ = Catalogue::parse(toml);
});
