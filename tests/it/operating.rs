//! The operator's commands against a control plane over its socket.

use weir::exit::Exit;

use crate::product::{Product, examples};

#[track_caller]
fn ended(answer: Result<String, (u8, String)>, exit: Exit, says: &str) {
    let (code, text) = answer.unwrap_err();
    assert_eq!(code, exit as u8, "{text}");
    assert!(text.contains(says), "{text}");
}

#[tokio::test]
async fn documents_go_in_are_shown_compared_and_taken_out() {
    let product = Product::start(&[]).await;
    let demo = examples("demo");
    let tried = product.weir(&["apply", "-f", &demo, "--dry-run"]).await.unwrap();
    assert!(tried.contains("create  Server/demo/orders"), "{tried}");
    assert!(tried.contains("nothing was changed"), "{tried}");
    let none = product.weir(&["get", "servers"]).await.unwrap();
    assert_eq!(none.lines().count(), 1, "{none}");

    let applied = product.weir(&["apply", "-f", &demo]).await.unwrap();
    assert!(applied.contains("12 documents changed; revision"), "{applied}");
    let again = product.weir(&["apply", "-f", &demo]).await.unwrap();
    assert!(again.contains("0 documents changed"), "{again}");
    assert_eq!(product.weir(&["diff", "-f", &demo]).await.unwrap(), "no differences\n");

    let table = product.weir(&["get", "server", "-g", "demo"]).await.unwrap();
    assert!(table.contains("orders   v1 over stdio"), "{table}");
    let names = product.weir(&["get", "server", "-o", "name"]).await.unwrap();
    assert_eq!(names, "Server/demo/orders\nServer/demo/tickets\n");
    let yaml = product.weir(&["get", "group", "demo", "-o", "yaml"]).await.unwrap();
    let file = product.file("group.yaml", &yaml.replace("Demo shop", "Other shop"));
    let shown = product.weir(&["diff", "-f", &file]).await.unwrap();
    assert!(shown.contains("-   displayName: Demo shop\n+   displayName: Other shop"), "{shown}");
    ended(product.weir(&["diff", "-f", &file, "--exit-code"]).await, Exit::Differs, "Other shop");

    let gone = product.weir(&["delete", "limit", "per-caller", "-g", "demo"]).await.unwrap();
    assert!(gone.contains("delete  Limit/demo/per-caller"), "{gone}");
    let missing = product.weir(&["get", "limit", "per-caller", "-g", "demo"]).await;
    ended(missing, Exit::NotFound, "Limit/demo/per-caller");
    let kept = product.weir(&["delete", "group", "demo"]).await;
    ended(kept, Exit::Refused, "Server/demo/orders");
    product.weir(&["delete", "group", "demo", "--cascade"]).await.unwrap();
    let none = product.weir(&["get", "group"]).await.unwrap();
    assert_eq!(none.lines().count(), 1, "{none}");
    product.stop().await;
}

#[tokio::test]
async fn more_documents_than_one_change_takes_go_in_parts() {
    let product = Product::start(&[]).await;
    let many = |spec: &str| -> String {
        let account = |n| {
            let spec = if n == 230 { spec } else { "{}" };
            format!(
                "---\napiVersion: weir/v1\nkind: ServiceAccount\nmetadata: {{name: a{n}, group: big}}\nspec: {spec}\n"
            )
        };
        (0..250).map(account).collect()
    };
    let group = "---\napiVersion: weir/v1\nkind: Group\nmetadata: {name: big}\nspec: {}\n";
    // A binding to a role that is not there comes last, and is not taken.
    let lost = "---\napiVersion: weir/v1\nkind: RoleBinding\nmetadata: {name: b, group: big}\n\
                spec: {role: nobody, subjects: [{serviceAccount: a1}]}\n";
    let file = product.file("bad.yaml", &format!("{lost}{}{group}", many("{}")));
    let half = product.weir(&["apply", "-f", &file]).await.unwrap_err();
    assert_eq!(half.0, Exit::Refused as u8, "{}", half.1);
    for part in ["part 3 of 3", "200 of 252 documents are in force since revision", "nobody"] {
        assert!(half.1.contains(part), "{part}: {}", half.1);
    }
    let file = product.file("good.yaml", &format!("{}{group}", many("{}")));
    ended(
        product.weir(&["apply", "-f", &file, "--dry-run"]).await,
        Exit::Usage,
        "a dry run takes at most 100",
    );
    let done = product.weir(&["apply", "-f", &file]).await.unwrap();
    assert!(
        done.contains("part 1 of 3 (Group/big to ServiceAccount/big/a98): 0 documents changed"),
        "{done}"
    );
    assert!(done.contains("51 of 251 documents changed; revision"), "{done}");
    let file = product.file("worse.yaml", &format!("{}{group}", many("{colour: red}")));
    ended(product.weir(&["apply", "-f", &file]).await, Exit::Refused, "nothing was sent");
    product.stop().await;
}

#[tokio::test]
async fn a_secret_is_never_shown_again() {
    let product = Product::start(&[]).await;
    product.weir(&["apply", "-f", &examples("demo")]).await.unwrap();
    let secret = "only-the-gateway-knows-this";
    for format in ["yaml", "json", "table"] {
        let shown = product.weir(&["get", "credential", "-o", format]).await.unwrap();
        assert!(!shown.contains(secret), "{shown}");
    }
    let other = "apiVersion: weir/v1\nkind: Credential\nmetadata: {group: demo, name: tickets}\n\
                 spec: {header: {name: Authorization, prefix: 'Bearer ', value: another}}\n";
    let shown = product.weir(&["diff", "-f", &product.file("c.yaml", other)]).await.unwrap();
    assert!(!shown.contains(secret) && !shown.contains("another"), "{shown}");
    let folder = product.stop().await;
    let mut stored = Vec::new();
    for entry in std::fs::read_dir(folder.path().join("data/control")).unwrap() {
        stored.extend(std::fs::read(entry.unwrap().path()).unwrap());
    }
    let found = stored.windows(secret.len()).any(|window| window == secret.as_bytes());
    assert!(!found, "the secret lies in the store in the clear");
}

#[tokio::test]
async fn what_is_wrong_is_told_with_its_place_and_its_exit_code() {
    let product = Product::start(&[]).await;
    let unknown = "apiVersion: weir/v1\nkind: Group\nmetadata: {name: x}\nspec: {colour: red}\n";
    let file = product.file("unknown.yaml", unknown);
    ended(product.weir(&["apply", "-f", &file]).await, Exit::Refused, "unknown.yaml");
    // What only the control plane can know: the group is not there.
    let orphan = "apiVersion: weir/v1\nkind: ServiceAccount\nmetadata: {group: nowhere, name: x}\nspec: {}\n";
    let file = product.file("orphan.yaml", orphan);
    ended(product.weir(&["apply", "-f", &file]).await, Exit::Refused, "ServiceAccount/nowhere/x");
    let file = product.file("group.yaml", &unknown.replace("colour: red", ""));
    let late = product.weir(&["apply", "-f", &file, "--expect", "1"]).await;
    ended(late, Exit::Conflict, "revision");
    let forged = product.weir_as("weir_op_abc_def", &["get", "group"]).await;
    ended(forged, Exit::NotAllowed, "token");
    ended(product.weir(&["get", "server", "x"]).await, Exit::Usage, "-g");
    product.stop().await;
}

#[tokio::test]
async fn tokens_and_operators_are_made_and_taken_away() {
    let product = Product::start(&[]).await;
    product.weir(&["apply", "-f", &examples("demo")]).await.unwrap();
    let token = product.weir(&["token", "create", "support", "-g", "demo", "-q"]).await.unwrap();
    assert!(token.starts_with("weir_at_") && token.lines().count() == 1, "{token}");
    let id = token.split('_').nth(2).unwrap();
    let account = product.weir(&["get", "serviceaccount", "support", "-g", "demo", "-o", "json"]);
    let account = account.await.unwrap();
    assert!(account.contains(id) && !account.contains(token.trim()), "{account}");
    // Rotation: the next one works beside the old one until that is taken away.
    let next = ["token", "create", "support", "-g", "demo", "--days", "30", "-q"];
    let next = product.weir(&next).await.unwrap();
    let next = next.split('_').nth(2).unwrap();
    let list = product.weir(&["token", "list", "support", "-g", "demo"]).await.unwrap();
    assert!(list.contains(id) && list.contains(next) && list.contains("LAST USED"), "{list}");
    product.weir(&["token", "revoke", "support", id, "-g", "demo"]).await.unwrap();
    let list = product.weir(&["token", "list", "support", "-g", "demo"]).await.unwrap();
    assert!(!list.contains(id) && list.contains(next), "{list}");
    let again = product.weir(&["token", "revoke", "support", id, "-g", "demo"]).await;
    ended(again, Exit::NotFound, "token");

    let line = ["operator", "create", "eve", "--role", "viewer", "-q"];
    let viewer = product.weir(&line).await.unwrap();
    let viewer = viewer.trim();
    assert!(product.weir_as(viewer, &["get", "group"]).await.unwrap().contains("demo"));
    let denied = product.weir_as(viewer, &["delete", "group", "demo", "--cascade"]).await;
    ended(denied, Exit::NotAllowed, "");
    let list = product.weir(&["operator", "list"]).await.unwrap();
    let id = list.lines().find(|line| line.contains("eve")).unwrap().split(' ').next().unwrap();
    product.weir(&["operator", "revoke", id]).await.unwrap();
    ended(product.weir_as(viewer, &["get", "group"]).await, Exit::NotAllowed, "token");
    product.stop().await;
}

#[tokio::test]
async fn a_restart_keeps_the_state_and_the_token() {
    let product = Product::start(&[]).await;
    product.weir(&["apply", "-f", &examples("demo")]).await.unwrap();
    let before = product.whereabouts.admin_token.expose().clone();
    let folder = product.stop().await;
    let product = Product::start_in(folder, &[]).await;
    assert_eq!(*product.whereabouts.admin_token.expose(), before);
    assert_eq!(product.whereabouts.groups, ["demo"]);
    product.stop().await;
}
