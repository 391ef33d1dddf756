//! The double as a program, for tests in other languages and for local trials.
//!
//!     cargo run -p llmobs-datadog-double -- --listen 127.0.0.1:8126 --documented-only --sign-in

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Parser;
use llmobs_datadog_double::{DatadogDouble, DoubleOptions};
use llmobs_local::{DataDir, LocalBackend, LocalOptions, demo};

/// A test double of a Datadog site over local data.
#[derive(Debug, Parser)]
struct Args {
    /// The loopback address to listen on; port 0 chooses a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// The data directory. Default: temporary data.
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Answer with documented attributes only.
    #[arg(long)]
    documented_only: bool,
    /// Serve Datadog's sign-in.
    #[arg(long)]
    sign_in: bool,
    /// Load the demo data.
    #[arg(long)]
    demo: bool,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    if !args.listen.ip().is_loopback() {
        return Err("--listen must be a loopback address, such as 127.0.0.1:8126".into());
    }
    let data_dir = args.data_dir.map_or(DataDir::Temporary, DataDir::Path);
    let backend = LocalBackend::open(LocalOptions::new(data_dir))?;
    if args.demo {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        demo::load(&backend, i64::try_from(now.as_millis())?)?;
    }
    let options = DoubleOptions {
        documented_only: args.documented_only,
        sign_in: args.sign_in,
    };
    let double = DatadogDouble::new(backend, options);
    let listener = tokio::net::TcpListener::bind(args.listen).await?;
    eprintln!("double of Datadog at http://{}", listener.local_addr()?);
    axum::serve(listener, double.router())
        .with_graceful_shutdown(async {
            let _ = tokio::signal::ctrl_c().await;
        })
        .await?;
    Ok(())
}
