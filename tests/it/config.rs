//! The configuration: who wins, what is reported, what is never quoted. No service is needed.

use std::{collections::BTreeMap, path::Path, time::Duration};

use herald::config::{Inputs, Loaded, OnUnknown, Problems, REFERENCE, UsersUrl, load};
use secrecy::ExposeSecret;

/// Loads `file` (text) with `env` and `--set`.
fn configure(file: &str, env: &[(&str, &str)], set: &[(&str, &str)]) -> Result<Loaded, Problems> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("herald.toml");
    std::fs::write(&path, file).unwrap();
    let own = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect::<Vec<_>>();
    load(&Inputs { file: Some(path), set: own(set), env: own(env).into_iter().collect() })
}

#[track_caller]
fn problems(file: &str, env: &[(&str, &str)], set: &[(&str, &str)]) -> Vec<String> {
    let problems = configure(file, env, set).expect_err("something is wrong");
    problems.0.iter().map(ToString::to_string).collect()
}

#[test]
fn the_compiled_in_text_is_a_whole_configuration() {
    let config = configure("", &[], &[]).unwrap().config;
    assert_eq!(config.broker.url.expose_secret(), "amqp://guest:guest@127.0.0.1:5672/%2f");
    assert_eq!((config.broker.prefix.as_str(), config.broker.prefetch), ("herald", 2048));
    assert_eq!(config.ably.url.as_str(), "https://main.realtime.ably.net/");
    assert_eq!(config.ably.timeout, Duration::from_secs(10));
    assert!(config.ably.key.is_none() && config.expo.access_token.is_none() && config.http.token.is_none());
    assert!(
        config.broker.management_url.is_none() && config.broker.ca_file.is_none() && config.otlp.endpoint.is_none()
    );
    assert_eq!((config.expo.rate, config.expo.unknown_repeats, config.expo.unregistered_share), (600, 2, 0.2));
    assert!(matches!(config.users.url, UsersUrl::Missing));
    assert_eq!(config.store.url.expose_secret(), "sqlite://herald.db");
    assert_eq!(config.store.retention, Duration::from_secs(7 * 86_400));
    assert_eq!(config.dead.retention, Duration::from_secs(14 * 86_400));
    let outbox = &config.outbox;
    assert!(outbox.url.is_none() && outbox.table == "herald_outbox" && outbox.batch == 256);
    assert_eq!((outbox.retention, outbox.poll), (Duration::ZERO, Duration::from_secs(1)));
    assert_eq!(config.retry.schedule, [5, 30, 120, 600, 3600].map(Duration::from_secs));
    assert_eq!(config.presence.on_unknown, OnUnknown::Push);
    assert_eq!(config.http.listen.to_string(), "127.0.0.1:8080");
    assert!(!config.instance.is_empty());
    let missing = config.complete().unwrap_err().to_string();
    assert!(missing.contains("ably.key (ABLY_API_KEY)") && missing.contains("herald sandbox"), "{missing}");
    assert!(missing.contains("users.url (DATABASE_URL)"), "{missing}");
}

#[test]
fn a_copy_of_the_reference_changes_nothing_and_conflicts_with_nothing() {
    let env = [("AMQP_URL", "amqp://other/"), ("HERALD_EXPO__RATE", "10")];
    let loaded = configure(REFERENCE, &env, &[]).unwrap();
    assert_eq!(loaded.warnings, [""; 0]);
    assert_eq!(loaded.config.expo.rate, 10);
}

#[test]
fn the_first_source_that_speaks_wins() {
    let file = "[broker]\nurl = \"amqp://file/\"\n";
    let ecosystem = ("AMQP_URL", "amqp://ecosystem/");
    let variable = ("HERALD_BROKER__URL", "amqp://variable/");
    let flag = ("broker.url", "amqp://flag/");
    for (env, set, expected, warnings) in [
        (&[][..], &[][..], "amqp://file/", 0),
        (&[ecosystem], &[], "amqp://ecosystem/", 1),
        (&[ecosystem, variable], &[], "amqp://variable/", 2),
        (&[ecosystem, variable], &[flag], "amqp://flag/", 3),
        (&[("AMQP_URL", "")], &[], "amqp://file/", 0),
        (&[("AMQP_URL", "amqp://file/")], &[], "amqp://file/", 0),
    ] {
        let loaded = configure(file, env, set).unwrap();
        assert_eq!(loaded.config.broker.url.expose_secret(), expected);
        assert_eq!(loaded.warnings.len(), warnings, "{:?}", loaded.warnings);
    }
    let conflict = configure("", &[ecosystem, variable], &[]).unwrap().warnings;
    assert_eq!(conflict, ["broker.url: HERALD_BROKER__URL is used, AMQP_URL says something else"]);
    let last = configure("", &[], &[("expo.rate", "1"), ("expo.rate", "2")]).unwrap();
    assert_eq!((last.config.expo.rate, last.warnings.len()), (2, 0));
}

#[test]
fn values_read_the_same_from_file_and_environment() {
    let file = "[retry]\nschedule = [\"1s\", \"1m\"]\n[presence]\non_unknown = \"retry\"\n[users]\nurl = \"none\"\n";
    let env = [
        ("HERALD_RETRY__SCHEDULE", r#"["1s", "1m"]"#),
        ("HERALD_PRESENCE__ON_UNKNOWN", "retry"),
        ("DATABASE_URL", "none"),
    ];
    for loaded in [configure(file, &[], &[]).unwrap(), configure("", &env, &[]).unwrap()] {
        assert_eq!(loaded.config.retry.schedule, [1, 60].map(Duration::from_secs));
        assert_eq!(loaded.config.presence.on_unknown, OnUnknown::Retry);
        assert!(matches!(loaded.config.users.url, UsersUrl::None));
    }
}

#[test]
fn only_variables_with_two_underscores_are_configuration() {
    let kubernetes =
        [("HERALD_PORT", "tcp://10.0.0.1:8080"), ("HERALD_SERVICE_HOST", "10.0.0.1"), ("HERALD_INSTANCE", "x y")];
    configure("", &kubernetes, &[]).unwrap();
}

#[test]
fn everything_wrong_is_told_in_one_go() {
    let file =
        "colour = 1\nbroker = 3\n[ably]\ntimeout = 10\nkee = \"x\"\n[http]\nlisten = \"here\"\n[what]\never = 1\n";
    let env = [
        ("HERALD_BROKER__PREFETCH", "0"),
        ("HERALD_BROKER__PREFETSCH", "1"),
        ("HERALD_EXPO__RATE", "fast"),
        ("HERALD_AMQP__URL", "x"),
    ];
    let found = problems(file, &env, &[("no.such", "1")]);
    for expected in [
        "colour in ",
        "line 1: unknown key",
        "line 2: must be a section, written [broker]",
        "ably.timeout (HERALD_ABLY__TIMEOUT) in ",
        "line 4: must be a text in quotes, not a number, not \"10\"",
        "line 5: unknown key (did you mean `ably.key`?)",
        "http.listen (HERALD_HTTP__LISTEN) in ",
        "line 7: must be an IP address and a port",
        "what.ever in ",
        "broker.prefetch (HERALD_BROKER__PREFETCH): must be a whole number from 1 to 65535, not \"0\"",
        "HERALD_BROKER__PREFETSCH: unknown variable (did you mean `HERALD_BROKER__PREFETCH`?)",
        "expo.rate (HERALD_EXPO__RATE): must be a whole number from 1 to 100000, not \"fast\"",
        "HERALD_AMQP__URL: unknown variable",
        "no.such (--set): unknown key",
    ] {
        assert!(found.iter().any(|problem| problem.contains(expected)), "{expected:?} is not in {found:#?}");
    }
    assert_eq!(found.len(), 11, "{found:#?}");
}

#[test]
fn each_rule_is_kept() {
    for (key, value, part) in [
        ("broker.url", "http://host", "begins with amqp:// or amqps://"),
        ("broker.url", "amqp://", "must be a URL"),
        ("broker.prefix", "", "must be 1 to 100 letters"),
        ("broker.prefix", "a b", "must be 1 to 100 letters"),
        ("broker.prefix", "amq.x", "not begin with `amq.`"),
        ("broker.prefetch", "65536", "from 1 to 65535"),
        ("broker.management_url", "amqp://x", "begins with http:// or https://"),
        ("ably.key", "app.key:", "must be an API key"),
        ("ably.key", "a b", "must be an API key"),
        ("ably.timeout", "0s", "from 1ms to 5m"),
        ("ably.timeout", "6m", "from 1ms to 5m"),
        ("ably.session_channel", "beheard", "must contain {sessionId}"),
        ("ably.presence_channel", "x:{sessionid}", "must contain {sessionId}"),
        ("ably.presence_channel", "{sessionId}:{userId}", "no other braces"),
        ("expo.rate", "0", "from 1 to"),
        ("expo.unknown_repeats", "-1", "from 0 to"),
        ("expo.unregistered_share", "1.5", "from 0 to 1"),
        ("expo.unregistered_share", "nan", "from 0 to 1"),
        ("expo.access_token", "two words", "one line of ASCII"),
        ("users.url", "mysql://x/y", "or `none`"),
        ("users.query", "SELECT 1", "must use $1"),
        ("users.clear", "UPDATE x SET y = $1", "must use $2"),
        ("store.url", "redis://x", "begins with postgres://"),
        ("store.retention", "0s", "from 1s"),
        ("outbox.url", "sqlite://app.db", "begins with postgres://"),
        ("outbox.table", "", "must be a table's name"),
        ("outbox.table", "a.b.c", "must be a table's name"),
        ("outbox.table", "a\"b", "without quotes"),
        ("outbox.poll", "0s", "from 10ms"),
        ("outbox.batch", "1001", "from 1 to 1000"),
        ("dead.retention", "50d", "to 49d"),
        ("receipts.after", "24h", "from 0ms"),
        ("presence.on_unknown", "ask", "must be \"push\" or \"retry\""),
        ("retry.schedule", "[]", "1 to 20 delays"),
        ("retry.schedule", "5s", "must be a list"),
        ("retry.schedule", "[\"5s\", \"1s\"]", "shortest delay first"),
        ("retry.schedule", "[\"60s\", \"1m\"]", "each only once"),
        ("retry.schedule", "[\"5 s\"]", "must be a duration"),
        ("shutdown.grace", "2h", "to 1h"),
        ("http.listen", "localhost", "IP address and a port"),
        ("catalogue.path", "", "must be a path"),
        ("log.format", "xml", "must be \"text\" or \"json\""),
        ("log.level", "loud", "must be error, warn"),
        ("log.level", "a=b=c", "must be error, warn"),
        ("otlp.endpoint", "collector:4317", "begins with http"),
        ("sandbox.listen", "8181", "IP address and a port"),
    ] {
        let found = problems("", &[], &[(key, value)]);
        assert!(found.len() == 1 && found[0].contains(part), "{key} = {value}: {found:?}");
    }
}

#[test]
fn an_api_key_goes_over_plain_http_only_to_loopback() {
    for (url, key, fine) in [
        ("http://sandbox:8181", "app.key:secret", false),
        ("http://127.0.0.1:8181", "app.key:secret", true),
        ("http://[::1]:8181", "app.key:secret", true),
        ("http://localhost:8181", "app.key:secret", true),
        ("https://ably.example", "app.key:secret", true),
        ("http://sandbox:8181", "a-token", true),
    ] {
        let loaded = configure("", &[], &[("ably.url", url), ("ably.key", key)]);
        assert_eq!(loaded.is_ok(), fine, "{url}");
    }
}

#[test]
fn a_secret_may_come_from_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let key = file("key", "app.key:secret\n");
    for name in ["ABLY_API_KEY_FILE", "HERALD_ABLY__KEY_FILE"] {
        let config = configure("", &[(name, &key)], &[]).unwrap().config;
        assert_eq!(config.ably.key.unwrap().expose_secret(), "app.key:secret");
    }
    let both = problems("", &[("ABLY_API_KEY", "app.key:other"), ("ABLY_API_KEY_FILE", &key)], &[]);
    assert_eq!(both, ["ably.key (ABLY_API_KEY): ABLY_API_KEY and ABLY_API_KEY_FILE are both set; keep one"]);
    let empty = problems("", &[("AMQP_URL_FILE", &file("empty", "\n"))], &[]);
    assert!(empty[0].starts_with("broker.url (AMQP_URL_FILE): ") && empty[0].ends_with("is empty"), "{empty:?}");
    let absent = problems("", &[("DATABASE_URL_FILE", "/no/such/file")], &[]);
    assert!(absent[0].contains("users.url (DATABASE_URL_FILE): /no/such/file cannot be read"), "{absent:?}");
    let not_secret = problems("", &[("HERALD_EXPO__RATE_FILE", &key)], &[]);
    assert!(not_secret[0].starts_with("HERALD_EXPO__RATE_FILE: unknown variable"), "{not_secret:?}");
}

#[test]
fn secrets_are_never_shown() {
    let file = "[http]\ntoken = \"hunter2\"\n[store]\nurl = \"postgres://u:hunter2@h/db\"\n";
    let env = [
        ("AMQP_URL", "amqp://u:hunter2@h/"),
        ("ABLY_API_KEY", "a.k:hunter2"),
        ("DATABASE_URL", "postgres://hunter2@h/d"),
    ];
    let loaded = configure(file, &env, &[]).unwrap();
    assert!(!format!("{loaded:?}").contains("hunter2"), "{loaded:?}");
    for (file, env, set) in [
        ("[broker]\nurl = \"ampq://u:hunter2@h\"", &[][..], &[][..]),
        ("[broker]\nurl = amqp://u:hunter2@h", &[], &[]),
        ("[ably]\nkey = [\"hunter2\"]\n", &[], &[]),
        ("", &[("ABLY_API_KEY", "hunter2 x"), ("DATABASE_URL", "u:hunter2@h"), ("HERALD_STORE__URL", "hunter2")], &[]),
        ("", &[("HERALD_ABLY__KEE", "hunter2")], &[("http.tokken", "hunter2"), ("http.token", "hunter2 x")]),
        ("", &[], &[("ably.url", "http://u:hunter2@h"), ("ably.key", "a.k:hunter2")]),
    ] {
        let problems = configure(file, env, set).expect_err("something is wrong");
        assert!(!format!("{problems} {problems:?}").contains("hunter2"), "{problems}");
    }
    let conflict = configure("", &[("AMQP_URL", "amqp://hunter2/"), ("HERALD_BROKER__URL", "amqp://x/")], &[]).unwrap();
    assert!(conflict.warnings.len() == 1 && !conflict.warnings[0].contains("hunter2"));
}

#[test]
fn an_absent_file_counts_only_when_somebody_named_it() {
    let absent = "/no/such/herald.toml";
    let named = Inputs { file: Some(absent.into()), ..Inputs::default() };
    let problem = load(&named).unwrap_err().to_string();
    assert!(problem.contains("/no/such/herald.toml (--config): cannot be read"), "{problem}");
    let env = BTreeMap::from([("HERALD_CONFIG".to_owned(), absent.to_owned())]);
    let problem = load(&Inputs { env, ..Inputs::default() }).unwrap_err().to_string();
    assert!(problem.contains("/no/such/herald.toml (HERALD_CONFIG): cannot be read"), "{problem}");
}

#[test]
fn what_is_not_toml_is_told_with_its_line_beside_the_rest() {
    let found = problems("[expo]\nrate = 0\n[ably]\ntimeout = 10s\n", &[], &[]);
    assert!(found.iter().any(|problem| problem.contains("line 4:")), "{found:?}");
    assert!(found.iter().any(|problem| problem.contains("expo.rate")), "{found:?}");
}

#[test]
fn a_named_catalogue_must_be_there_and_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("messages.toml");
    std::fs::write(&path, "[default]\ntitle = \"T\"\nbody = 3\n").unwrap();
    let load = |path: &Path| {
        let path = path.display().to_string();
        configure("", &[], &[("catalogue.path", &path)]).unwrap().config.catalogue.load()
    };
    let mistakes = load(&path).unwrap_err().to_string();
    let expected = format!("default.body in {} line 3: must be a text in quotes, not a number", path.display());
    assert!(mistakes.contains(&expected), "{mistakes}");
    let absent = load(&dir.path().join("absent.toml")).unwrap_err().to_string();
    assert!(absent.contains("catalogue.path (HERALD_CATALOGUE__PATH)"), "{absent}");
}

/// TOML as people write it by mistake: keys that exist, values of every kind, broken lines.
fn toml_text() -> impl proptest::strategy::Strategy<Value = String> {
    use proptest::prelude::*;
    let sections = vec!["broker", "ably", "expo", "users", "store", "retry", "http", "log", "no_such"];
    let keys = vec!["url", "key", "timeout", "prefetch", "schedule", "listen", "token", "query", "level", "no_such"];
    let values = vec![
        "1",
        "-1",
        "9999999999999999999999",
        "1e999",
        "nan",
        "true",
        "\"\"",
        "\"5s\"",
        "'''",
        "[",
        "[\"5s\"]",
        "{a=1}",
        "1979-05-27T07:32:00Z",
        "\"\\uD800\"",
        "",
    ];
    let line = (prop::sample::select(sections), prop::sample::select(keys), prop::sample::select(values));
    let lines = prop::collection::vec(line, 0..8).prop_map(|lines| {
        lines.into_iter().map(|(section, key, value)| format!("[{section}]\n{key} = {value}\n")).collect::<String>()
    });
    prop_oneof![lines, any::<String>()]
}

const SECRETS: [(&str, &str, &str); 7] = [
    ("broker", "url", "AMQP_URL"),
    ("broker", "management_url", "HERALD_BROKER__MANAGEMENT_URL"),
    ("ably", "key", "ABLY_API_KEY"),
    ("expo", "access_token", "EXPO_ACCESS_TOKEN"),
    ("users", "url", "DATABASE_URL"),
    ("store", "url", "HERALD_STORE__URL"),
    ("http", "token", "HERALD_HTTP__TOKEN"),
];

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(64))]

    #[test]
    fn no_file_or_variable_panics_or_is_quoted_where_it_is_secret(
        toml in toml_text(), value: String, secret in "[^\r\n'\u{0}]{0,20}", which in 0..SECRETS.len(),
    ) {
        let (section, key, variable) = SECRETS[which];
        let canary = "c4n4ry";
        for secret in [
            format!("{secret}{canary}"),
            format!("{canary}{secret}"),
            format!("amqp://u:{canary}{secret}@h/"),
            format!("postgres://{canary}@h/{secret}"),
        ] {
            let in_file = format!("[{section}]\n{key} = '''{secret}'''\n{toml}");
            let prefetch = [("HERALD_BROKER__PREFETCH", value.as_str())];
            let set = [(variable, secret.as_str()), ("HERALD_RETRY__SCHEDULE", &value), ("HERALD_LOG__LEVEL", &value)];
            for (file, env) in [(&in_file, &prefetch[..]), (&toml, &set)] {
                let told = match configure(file, env, &[]) {
                    Ok(loaded) => format!("{loaded:?}"),
                    Err(problems) => format!("{problems} {problems:?}"),
                };
                proptest::prop_assert!(!told.contains(canary), "{}", told);
            }
        }
    }
}
