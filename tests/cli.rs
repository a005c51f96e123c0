//! The command line as a user meets it: what it prints, what it exits with, what it leaves behind.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use crate::harness::s3::{S3, elements};
use crate::harness::{FOREBAY, Home, SECRET_KEY, Server, is_mounted};

fn help(args: &[&str]) -> String {
    let output = std::process::Command::new(FOREBAY)
        .args(args)
        .arg("--help")
        .output()
        .unwrap();
    assert!(output.status.success(), "{args:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn help_lists_what_there_is() {
    let text = help(&[]);
    let commands = text.split_once("Commands:\n").unwrap().1;
    let names: Vec<&str> = commands
        .lines()
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
        .filter(|name| !name.is_empty())
        .collect();
    let expected = [
        "serve",
        "mount",
        "account",
        "key",
        "fsck",
        "scrub",
        "presign",
        "warm",
        "cache",
        "completions",
        "help",
    ];
    assert_eq!(names, expected);
}

#[test]
fn help_of_serve_says_each_default_and_variable() {
    let text = help(&["serve"]);
    for (flag, variable, default) in [
        ("--data <DIR>", "FOREBAY_DATA", "./forebay-data"),
        ("--listen <ADDR:PORT>", "FOREBAY_LISTEN", "127.0.0.1:9000"),
        ("--close <CLOSE>", "FOREBAY_CLOSE", "deferred"),
        ("--durability <DURABILITY>", "FOREBAY_DURABILITY", "full"),
        ("--compat <COMPAT>", "FOREBAY_COMPAT", "forebay"),
        ("--region <REGION>", "FOREBAY_REGION", "us-east-1"),
        ("--mount-cache <WORD>", "FOREBAY_MOUNT_CACHE", "default"),
    ] {
        let section = text
            .split_once(flag)
            .unwrap_or_else(|| panic!("{flag}: {text}"))
            .1;
        let section = section.split("\n      --").next().unwrap();
        assert!(section.contains(&format!("[env: {variable}]")), "{section}");
        assert!(
            section.contains(&format!("[default: {default}]")),
            "{section}"
        );
    }
}

#[test]
fn a_wrong_command_line_exits_with_2_and_says_what_is_wrong() {
    let home = Home::new();
    for args in [
        &["serve", "--listne", "x"][..],
        &["serve", "--listen", "9000"],
        &["mend"],
    ] {
        let output = home.run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(!output.stderr.is_empty(), "{args:?}");
    }
    assert!(!home.data().exists(), "nothing was touched");
}

#[test]
fn the_file_is_over_the_default_the_environment_over_the_file_and_a_flag_over_all() {
    let home = Home::new();
    let config = home.path().join("forebay.toml");
    fs::write(&config, "listen = '127.0.0.1:0'\nregion = 'from-file'\n").unwrap();
    let banner = |variable: Option<&str>, flag: Option<&str>| {
        let mut command = home.command(&["serve", "--config"]);
        command.arg(&config);
        if let Some(region) = variable {
            command.env("FOREBAY_REGION", region);
        }
        if let Some(region) = flag {
            command.args(["--region", region]);
        }
        let server = Server::start(command, None);
        let banner = server.banner.clone();
        server.stop_ok();
        banner
    };
    assert!(banner(None, None).contains("region from-file"));
    assert!(banner(Some("from-variable"), None).contains("region from-variable"));
    assert!(banner(Some("from-variable"), Some("from-flag")).contains("region from-flag"));
}

#[test]
fn a_configuration_file_with_an_unknown_line_is_refused() {
    let home = Home::new();
    let config = home.path().join("forebay.toml");
    fs::write(&config, "lsiten = '127.0.0.1:0'\n").unwrap();
    let output = home.run(&["serve", "--config", config.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.contains("forebay.toml: unknown setting lsiten; known are data,"),
        "{stderr}"
    );
}

#[test]
fn the_start_says_what_is_where_and_never_the_secret() {
    let home = Home::new();
    let mut command = home.command(&["serve", "--listen", "127.0.0.1:0"]);
    command
        .env_remove("FOREBAY_ROOT_ACCESS_KEY")
        .env_remove("FOREBAY_ROOT_SECRET_KEY");
    let server = Server::start(command, None);
    let path = home.data().join("root-key");
    let key_file = fs::read_to_string(&path).unwrap();
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let value = |name: &str| {
        let line = key_file.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().to_owned()
    };
    let (id, secret) = (value("AWS_ACCESS_KEY_ID="), value("AWS_SECRET_ACCESS_KEY="));
    for part in [
        server.endpoint(),
        path.to_str().unwrap(),
        &id,
        "region us-east-1",
    ] {
        assert!(server.banner.contains(part), "{part} in\n{}", server.banner);
    }
    assert!(!server.banner.contains(&secret));
    let s3 = S3::new(server.endpoint(), &id, &secret);
    s3.create_bucket("bkt");
    let (status, stderr) = server.stop();
    assert!(status.success() && !stderr.contains(&secret), "{stderr}");
}

#[test]
fn a_port_in_use_is_said_with_who_uses_it() {
    let home = Home::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = home.run(&["serve", "--listen", &address]);
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    let expected = format!(
        "forebay: {address} is in use by pid {} (",
        std::process::id()
    );
    assert!(stderr.contains(&expected), "{stderr}");
    assert!(stderr.contains("Choose another with --listen"), "{stderr}");
}

#[test]
fn one_server_owns_a_data_directory() {
    let home = Home::new();
    let server = home.serve();
    for args in [
        &["serve", "--listen", "127.0.0.1:0"][..],
        &["fsck"],
        &["scrub"],
    ] {
        let output = home.run(args);
        assert!(!output.status.success(), "{args:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains("in use"), "{args:?}: {stderr}");
    }
    server.stop_ok();
}

#[test]
fn accounts_and_keys_are_managed_while_a_server_runs_and_while_none_does() {
    let home = Home::new();
    let manage = |name: &str| {
        home.run_ok(&["account", "create", name]);
        assert!(home.run_ok(&["account", "ls"]).contains(name));
        let lines = home.run_ok(&["key", "create", "--account", name]);
        let value = |name: &str| {
            let line = lines.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("{name} in {lines}"))
                .to_owned()
        };
        let key = (value("AWS_ACCESS_KEY_ID="), value("AWS_SECRET_ACCESS_KEY="));
        let listed = home.run_ok(&["key", "ls", "--account", name]);
        assert!(
            listed.contains(&key.0) && !listed.contains(&key.1),
            "{listed}"
        );
        key
    };
    home.serve().stop_ok();
    let offline = manage("made-offline");
    let server = home.serve();
    let online = manage("made-online");
    for (id, secret) in [&offline, &online] {
        let s3 = S3::new(server.endpoint(), id, secret);
        s3.call("GET", "/", &[], b"").unwrap().expect(200);
    }
    home.run_ok(&["key", "rm", &online.0]);
    let s3 = S3::new(server.endpoint(), &online.0, &online.1);
    let refused = s3.call("GET", "/", &[], b"").unwrap().expect(403);
    assert_eq!(elements(&refused.text(), "Code"), ["InvalidAccessKeyId"]);
    home.run_ok(&["account", "rm", "made-online"]);
    assert!(!home.run_ok(&["account", "ls"]).contains("made-online"));
    for args in [
        &["account", "rm", "nobody"][..],
        &["key", "create", "--account", "nobody"],
    ] {
        assert_eq!(home.run(args).status.code(), Some(1), "{args:?}");
    }
    server.stop_ok();
}

#[test]
fn a_presigned_url_is_good_for_one_method_on_one_object() {
    let home = Home::new();
    let server = home.serve();
    server.s3().create_bucket("bkt");
    server
        .s3()
        .put("bkt", "a key+ü", b"text")
        .unwrap()
        .expect(200);
    let endpoint = server.endpoint();
    let url = home.run_ok(&["presign", "s3://bkt/a key+ü", "--endpoint", endpoint]);
    let get = |url: &str| crate::harness::s3::fetch(url.trim()).unwrap();
    assert_eq!(get(&url).expect(200).body, b"text");
    get(&url.replace("key", "kay")).expect(403);
    let url = home.run_ok(&[
        "presign",
        "s3://bkt/a key+ü",
        "--method",
        "PUT",
        "--endpoint",
        endpoint,
    ]);
    get(&url).expect(403);
    server.stop_ok();
}

#[test]
fn sigterm_publishes_what_was_written_unmounts_and_exits_with_0() {
    let home = Home::new();
    let server = home.serve_and_mount();
    server.s3().create_bucket("bkt");
    fs::write(server.mnt().join("bkt/f"), "written").unwrap();
    server.stop_ok();
    assert!(!is_mounted(&home.mnt()));
    assert!(!home.data().join("admin.sock").exists());
    let server = home.serve();
    assert_eq!(
        server.s3().get("bkt", "f").unwrap().expect(200).body,
        b"written"
    );
    server.stop_ok();
}

/// A request that never ends holds the first signal up.
#[test]
fn a_second_signal_ends_the_server_at_once() {
    let home = Home::new();
    let mut server = home.serve();
    server.s3().create_bucket("bkt");
    let s3 = server.s3();
    let (reader, writer) = std::io::pipe().unwrap();
    let upload = std::thread::spawn(move || {
        s3.stream(
            "PUT",
            "/bkt/endless",
            &[],
            (1 << 30, reader),
            &mut std::io::sink(),
        )
    });
    std::thread::sleep(Duration::from_millis(300));
    server.signal("INT");
    std::thread::sleep(Duration::from_millis(300));
    server.signal("INT");
    let (status, _) = server.wait();
    assert_eq!(status.code(), Some(130), "{status}");
    drop(writer);
    assert!(!matches!(upload.join().unwrap(), Ok(answer) if answer.status == 200));
}

#[test]
fn a_dead_mount_of_a_killed_server_is_replaced() {
    let home = Home::new();
    let mut first = home.serve_and_mount();
    first.s3().create_bucket("bkt");
    first.s3().put("bkt", "f", b"x").unwrap().expect(200);
    first.signal("KILL");
    first.wait();
    // The mount is still there and answers nothing any more; `first` is not dropped until the end.
    assert!(fs::read_dir(home.mnt()).is_err());
    let second = home.serve_and_mount();
    assert_eq!(fs::read(home.mnt().join("bkt/f")).unwrap(), b"x");
    second.stop_ok();
    assert!(!is_mounted(&home.mnt()));
}

#[test]
fn completions_are_made_for_every_shell() {
    let home = Home::new();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        assert!(
            home.run_ok(&["completions", shell])
                .contains("mount-source"),
            "{shell}"
        );
    }
}

#[test]
fn fsck_and_scrub_of_a_sound_store_exit_with_0() {
    let home = Home::new();
    let server = home.serve();
    server.s3().create_bucket("bkt");
    server.s3().put("bkt", "small", b"x").unwrap().expect(200);
    server
        .s3()
        .put("bkt", "large", &vec![7; 4 << 20])
        .unwrap()
        .expect(200);
    server.stop_ok();
    home.run_ok(&["fsck"]);
    home.run_ok(&["scrub"]);
    home.run_ok(&["fsck", "--repair"]);
    fs::remove_file(home.data().join("index.sqlite")).unwrap();
    home.run_ok(&["fsck", "--rebuild-index"]);
    let server = home.serve();
    assert_eq!(
        server.s3().get("bkt", "small").unwrap().expect(200).body,
        b"x"
    );
    assert_eq!(
        server
            .s3()
            .get("bkt", "large")
            .unwrap()
            .expect(200)
            .body
            .len(),
        4 << 20
    );
    server.stop_ok();
}

#[test]
fn scrub_finds_a_flipped_bit() {
    let home = Home::new();
    let server = home.serve();
    server.s3().create_bucket("bkt");
    server
        .s3()
        .put("bkt", "large", &vec![7; 4 << 20])
        .unwrap()
        .expect(200);
    server.stop_ok();
    let file = largest_file(&home.data().join("files"));
    let mut bytes = fs::read(&file).unwrap();
    bytes[1 << 19] ^= 1;
    fs::write(&file, bytes).unwrap();
    let output = home.run(&["scrub"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("large"), "{text}");
}

fn largest_file(dir: &std::path::Path) -> std::path::PathBuf {
    let mut files = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for item in fs::read_dir(dir).unwrap() {
            let item = item.unwrap();
            if item.file_type().unwrap().is_dir() {
                dirs.push(item.path());
            } else {
                files.push((item.metadata().unwrap().len(), item.path()));
            }
        }
    }
    files.into_iter().max().unwrap().1
}

#[test]
fn no_secret_is_in_the_process_list() {
    let home = Home::new();
    let server = home.serve();
    let line = fs::read(format!("/proc/{}/cmdline", server.pid())).unwrap();
    assert!(!String::from_utf8_lossy(&line).contains(SECRET_KEY));
    server.stop_ok();
}
