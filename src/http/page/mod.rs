//! The operator's page: files in the binary, the same for everybody, with nothing in them that anybody would have to hide.
//!
//! Served by `server`. What the page shows it asks `api` for. Never refers to another origin, and its policy lets nothing in.

use axum::{
    Router,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use sha2::{Digest, Sha256};

/// One file.
struct Asset {
    path: &'static str,
    kind: &'static str,
    text: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

const fn asset(path: &'static str, kind: &'static str, text: &'static str) -> Asset {
    Asset { path, kind, text }
}

const ASSETS: [Asset; 20] = [
    asset("/", HTML, include_str!("index.html")),
    asset("/page/page.css", CSS, include_str!("page.css")),
    asset("/page/icon.svg", SVG, include_str!("icon.svg")),
    asset("/page/main.js", SCRIPT, include_str!("main.js")),
    asset("/page/overview.js", SCRIPT, include_str!("overview.js")),
    asset("/page/queues.js", SCRIPT, include_str!("queues.js")),
    asset("/page/chart.js", SCRIPT, include_str!("chart.js")),
    asset("/page/dead.js", SCRIPT, include_str!("dead.js")),
    asset("/page/letter.js", SCRIPT, include_str!("letter.js")),
    asset("/page/preview.js", SCRIPT, include_str!("preview.js")),
    asset("/page/explain.js", SCRIPT, include_str!("explain.js")),
    asset("/page/steer.js", SCRIPT, include_str!("steer.js")),
    asset("/page/ask.js", SCRIPT, include_str!("ask.js")),
    asset("/page/token.js", SCRIPT, include_str!("token.js")),
    asset("/page/api.js", SCRIPT, include_str!("api.js")),
    asset("/page/dom.js", SCRIPT, include_str!("dom.js")),
    asset("/page/format.js", SCRIPT, include_str!("format.js")),
    asset("/page/uplot.js", SCRIPT, include_str!("uplot.js")),
    asset("/page/uplot.css", CSS, include_str!("uplot.css")),
    asset("/page/uplot.LICENSE", "text/plain; charset=utf-8", include_str!("uplot.LICENSE")),
];

/// Own files only, nothing inline, no markup made from text, nobody may frame it.
pub(super) const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// Tells whether `path` is one of the page's files.
pub(super) fn has(path: &str) -> bool {
    ASSETS.iter().any(|asset| asset.path == path)
}

/// Returns the routes of the page's files.
pub(super) fn routes() -> Router {
    ASSETS.iter().fold(Router::new(), |router, asset| {
        // A browser asks each time, and gets nothing sent that it has.
        let tag = format!("\"{:x}\"", Sha256::digest(asset.text));
        router.route(asset.path, get(async move |headers: HeaderMap| answer(asset, &tag, &headers)))
    })
}

fn answer(asset: &Asset, tag: &str, headers: &HeaderMap) -> Response {
    let known = headers.get(header::IF_NONE_MATCH).is_some_and(|value| value.as_bytes() == tag.as_bytes());
    let tag = HeaderValue::from_str(tag).unwrap_or(HeaderValue::from_static("\"\""));
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(asset.kind)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::ETAG, tag),
    ];
    if known { (StatusCode::NOT_MODIFIED, headers).into_response() } else { (headers, asset.text).into_response() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_beside_this_one_is_served_and_small() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http/page");
        for file in std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()) {
            let served = if file == "index.html" { "/".to_owned() } else { format!("/page/{file}") };
            assert_eq!(has(&served), !["mod.rs", "README.md"].contains(&file.as_str()), "{file}");
        }
        let own = ASSETS.iter().filter(|asset| !asset.path.contains("uplot"));
        assert!(own.map(|asset| asset.text.len()).sum::<usize>() < 120_000);
    }

    #[test]
    fn no_file_of_ours_names_another_origin_or_makes_markup_from_text() {
        for asset in ASSETS.iter().filter(|asset| !asset.path.contains("uplot")) {
            let text = asset.text.replace("http://www.w3.org/2000/svg", "");
            for word in ["http://", "https://", "innerHTML", "insertAdjacentHTML", " style=", "onclick=\"", "eval("] {
                assert!(!text.contains(word), "{} has {word}", asset.path);
            }
        }
    }
}
