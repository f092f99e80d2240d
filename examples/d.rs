#[tokio::main]
async fn main() {
    herald::telemetry::init(&herald::config::Log {
        format: herald::config::LogFormat::Text,
        level: std::env::var("L").unwrap_or("info".into()),
    });
    let r = herald::demo::demo(std::env::args().nth(1), true).await;
    println!("{r:?}");
}
