//! A new version comes: every node is told to end and starts again, one after another.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::ensure;
use tokio::time::{Instant, sleep};

use super::stage::Stage;
use crate::lab::redis::Redis;
use crate::lab::{Lab, PATIENCE, Process, eventually, free_port};

/// All three nodes, several rounds, under load; REST goes through nginx as it is deployed.
pub async fn rolling(lab: &mut Lab) -> anyhow::Result<()> {
    let redis = Redis::durable(&lab.dir).await?;
    lab.promises.nobody_gone_within = Some(lab.pick(12_000, 2000));
    if !lab.long {
        lab.settings.push(("DRAIN_SECS".into(), "5".into()));
        // The short form shares the machine, and clients hear late of their loss: they should be back in time nevertheless.
        lab.settings
            .push(("PRESENCE_GRACE_MS".into(), "12000".into()));
    }
    let mut stage = Stage::usual(lab, &redis).await?;
    let (_front, port) = nginx(lab, &stage).await?;
    let rooms = stage.rooms.clone();
    stage.crowd.add_poster(
        "through-nginx",
        &rooms,
        &[([127, 0, 0, 1], port).into()],
        Duration::from_millis(50),
    )?;
    stage.load_for(Duration::from_secs(3)).await?;
    let began = Instant::now();
    for round in 0..lab.pick(1, 5) {
        for index in 0..stage.nodes.len() {
            lab.step(format!("round {round}: node-{index} is replaced"));
            stage.nodes[index].stop(Duration::from_secs(60)).await?;
            stage.nodes[index].run().await?;
            let node = &stage.nodes[index];
            eventually("it is ready", Duration::from_secs(20), async || {
                node.is_ready().await
            })
            .await?;
            stage.crowd.all_back(PATIENCE).await?;
            sleep(Duration::from_millis(500)).await;
        }
    }
    lab.figure(
        "all nodes replaced in",
        format!("{:.0} s", began.elapsed().as_secs_f64()),
    );
    sleep(Duration::from_secs(4)).await;
    stage.settle(lab).await?;
    let statuses = stage.crowd.posters[1].statuses();
    lab.figure("answers to REST through nginx", format!("{statuses:?}"));
    lab.require(
        statuses.keys().all(|status| matches!(status, 200 | 201)),
        format!("REST through nginx: {statuses:?}"),
    );
    Ok(())
}

/// nginx with the configuration that is deployed, in front of the nodes.
async fn nginx(lab: &Lab, stage: &Stage) -> anyhow::Result<(Process, u16)> {
    let port = free_port();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut text = std::fs::read_to_string(root.join("deploy/nginx.conf"))?;
    text = text.replace("${HUBBUB_LISTEN}", &format!("127.0.0.1:{port}"));
    for (index, node) in stage.nodes.iter().enumerate() {
        text = text.replace(
            &format!("${{HUBBUB_NODE_{}}}", index + 1),
            &node.address.to_string(),
        );
    }
    ensure!(
        !text.contains("${HUBBUB"),
        "the configuration of nginx has a placeholder that is not known here"
    );
    let dir = lab.dir.join("nginx");
    std::fs::create_dir_all(&dir)?;
    let file = dir.join("nginx.conf");
    // In the foreground, as one process that can be killed with nothing left of it, and with its files where it may write.
    let mut places = format!(
        "daemon off;\nmaster_process off;\npid {0}/pid;\n",
        dir.display()
    );
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        text = text.replacen(
            "http {",
            &format!("http {{\n    {kind}_temp_path {}/{kind};", dir.display()),
            1,
        );
    }
    places.push_str(&text.replace("/dev/stdout", &dir.join("access.log").display().to_string()));
    std::fs::write(&file, places)?;
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
            .is_ok_and(|answer| answer.status().is_success())
    };
    eventually("nginx answers", Duration::from_secs(10), answers).await?;
    Ok((process, port))
}
