//! A new version is deployed: the nodes are terminated and restarted, one after another.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::ensure;
use tokio::time::{Instant, sleep};

use super::test_cluster::TestCluster;
use crate::lab::redis::Redis;
use crate::lab::{Lab, Process, RECOVERY_TIMEOUT, eventually, free_port};

/// All three nodes are restarted in several rounds, under load. A REST client uses nginx with its
/// deployed configuration.
pub async fn rolling_restart(lab: &mut Lab) -> anyhow::Result<()> {
    let redis = Redis::durable(&lab.dir).await?;
    lab.promises.no_departure_within = Some(lab.by_form(12_000, 2000));
    if !lab.full {
        lab.settings.push(("DRAIN_SECS".into(), "5".into()));
        // The short form shares the machine with other scenarios, so clients notice the loss of
        // their connections late. They must be able to come back within the grace all the same.
        lab.settings
            .push(("PRESENCE_GRACE_MS".into(), "12000".into()));
    }
    let mut cluster = TestCluster::start(lab, &redis).await?;
    let (_nginx, port) = start_nginx(lab, &cluster).await?;
    let rooms = cluster.rooms.clone();
    cluster.clients.add_poster(
        "through-nginx",
        &rooms,
        &[([127, 0, 0, 1], port).into()],
        Duration::from_millis(50),
    )?;
    cluster.send_for(Duration::from_secs(3)).await?;
    let began = Instant::now();
    for round in 0..lab.by_form(1, 5) {
        for index in 0..cluster.nodes.len() {
            lab.step(format!("round {round}: node-{index} is restarted"));
            let node = &mut cluster.nodes[index];
            node.stop(Duration::from_secs(60)).await?;
            node.run().await?;
            node.wait_ready(Duration::from_secs(20)).await?;
            cluster.clients.wait_ready(RECOVERY_TIMEOUT).await?;
            sleep(Duration::from_millis(500)).await;
        }
    }
    lab.report(
        "all restarts took",
        format!("{:.0} s", began.elapsed().as_secs_f64()),
    );
    sleep(Duration::from_secs(4)).await;
    cluster.finish(lab).await?;
    let statuses = cluster.clients.posters[1].statuses();
    lab.report(
        "REST through nginx: responses by status",
        format!("{statuses:?}"),
    );
    lab.require(
        statuses.keys().all(|status| matches!(status, 200 | 201)),
        format!("REST through nginx: responses by status: {statuses:?}"),
    );
    Ok(())
}

/// Starts nginx with its deployed configuration, in front of the nodes. Returns its process and its
/// port.
async fn start_nginx(lab: &Lab, cluster: &TestCluster) -> anyhow::Result<(Process, u16)> {
    let port = free_port();
    let dir = lab.dir.join("nginx");
    std::fs::create_dir_all(&dir)?;
    let file = dir.join("nginx.conf");
    std::fs::write(&file, nginx_config(cluster, port, &dir)?)?;
    let mut command = Command::new("nginx");
    command
        .arg("-e")
        .arg(dir.join("error.log"))
        .arg("-p")
        .arg(&dir)
        .arg("-c")
        .arg(&file);
    let process = Process::start(&mut command, &dir.join("log"))?;
    let http = reqwest::Client::new();
    let url = format!("http://127.0.0.1:{port}/health");
    let answers = async || {
        http.get(&url)
            .send()
            .await
            .is_ok_and(|response| response.status().is_success())
    };
    eventually("nginx answers", Duration::from_secs(10), answers).await?;
    Ok((process, port))
}

/// The deployed configuration, with the addresses of this cluster, and with all files in `dir`. The
/// addresses stand in for the name of the nodes, which nginx before 1.27.3 can't resolve at run time.
fn nginx_config(cluster: &TestCluster, port: u16, dir: &Path) -> anyhow::Result<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let template = std::fs::read_to_string(root.join("deploy/nginx.conf"))?;
    let listen = dir.join("listen.conf");
    std::fs::write(&listen, format!("listen 127.0.0.1:{port};"))?;
    let mut config = String::new();
    for line in template.lines() {
        let directive = line.trim_start();
        if let Some(options) = directive.strip_prefix("server ${HUBBUB_NODES} resolve ") {
            for node in &cluster.nodes {
                config.push_str(&format!("server {} {options}\n", node.address));
            }
        } else if !directive.starts_with("zone ") && !directive.starts_with("resolver ") {
            config.push_str(line);
            config.push('\n');
        }
    }
    // The cookie for polling sessions names an address and so needs nodes on one port. This scenario
    // sends REST requests only.
    let values = [
        ("${HUBBUB_NODES}", "nodes"),
        ("${HUBBUB_RESOLVER}", "resolver"),
        ("${HUBBUB_NET}", "127.0.0"),
        ("${HUBBUB_PORT}", "1"),
        ("${HUBBUB_SCHEME}", "http"),
        ("${HUBBUB_LISTEN_CONF}", &listen.display().to_string()),
    ];
    for (placeholder, value) in values {
        config = config.replace(placeholder, value);
    }
    ensure!(
        !config.contains("${HUBBUB"),
        "the configuration of nginx has a placeholder that this scenario doesn't know"
    );
    let dir = dir.display();
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        let directive = format!("http {{\n    {kind}_temp_path {dir}/{kind};");
        config = config.replacen("http {", &directive, 1);
    }
    config = config.replace("/dev/stdout", &format!("{dir}/access.log"));
    // In the foreground and as one process, so that no process is left when it is killed.
    Ok(format!(
        "daemon off;\nmaster_process off;\npid {dir}/pid;\n{config}"
    ))
}
