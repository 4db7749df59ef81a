//! Admission of texts as operators write them.

use std::collections::HashMap;

use weir_model::id::Revision;
use weir_model::resource::{ApiTokenEntry, ServiceAccount, parse_documents};

use super::*;

/// A configuration, changed by admitted texts.
#[derive(Default)]
struct World {
    set: ResourceSet,
    secrets: HashMap<String, String>,
    next: usize,
}

const BASE: &str = "
apiVersion: weir/v1
kind: Group
metadata: {name: acme}
spec: {}
---
apiVersion: weir/v1
kind: Role
metadata: {name: reader, group: acme}
spec: {rules: [{servers: ['*'], tools: ['*']}]}
---
apiVersion: weir/v1
kind: RoleBinding
metadata: {name: readers, group: acme}
spec: {role: reader, subjects: [{membership: staff}]}
---
apiVersion: weir/v1
kind: Server
metadata: {name: billing, group: acme}
spec: {versions: [{name: v1, upstream: {http: {url: 'https://billing.example/mcp'}}}]}
";

const CREDENTIAL: &str = "
apiVersion: weir/v1
kind: Credential
metadata: {name: key, group: acme}
spec: {header: {name: X-Api-Key, value: s3cr3t}}
";

const ACCOUNT: &str = "
apiVersion: weir/v1
kind: ServiceAccount
metadata: {name: ci, group: acme}
spec: {displayName: CI}
";

impl World {
    fn new() -> Self {
        let mut world = Self::default();
        world.apply(BASE);
        world
    }

    fn current(&self) -> Current {
        let indexed = Indexed { set: self.set.clone(), ..Indexed::default() };
        let secrets = stand_ins(&self.set);
        let compiled = Snapshot::compile(Revision(1), &self.set, secrets, None);
        let opened = self.secrets.iter();
        let opened = opened
            .map(|(id, text)| (id.clone(), Arc::new(Secret::new(text.clone().into_bytes()))))
            .collect();
        Current { indexed: Arc::new(indexed), compiled: Arc::new(compiled), opened }
    }

    fn read(&mut self, text: &str) -> Proposal {
        let mut new_id = || {
            self.next += 1;
            format!("s{}", self.next)
        };
        let documents = parse_documents(text, &mut new_id).unwrap();
        Proposal { documents, ..Proposal::default() }
    }

    fn take(&mut self, proposal: &Proposal) -> Result<Plan, Refused> {
        let plan = admit(&self.current(), proposal)?;
        self.set = plan.applied_to(&self.set);
        for (id, text) in &plan.secrets {
            self.secrets.insert(id.clone(), text.expose().clone());
        }
        for id in &plan.secrets_gone {
            self.secrets.remove(id);
        }
        Ok(plan)
    }

    fn apply(&mut self, text: &str) -> Vec<(Action, String)> {
        let proposal = self.read(text);
        told(&self.take(&proposal).unwrap())
    }

    fn refused(&mut self, text: &str) -> Vec<String> {
        let proposal = self.read(text);
        fields(self.take(&proposal))
    }

    fn delete(&mut self, keys: &[&str], children: Children) -> Result<Plan, Refused> {
        let deletes = keys.iter().map(|key| ResourceKey::parse(key).unwrap()).collect();
        self.take(&Proposal { deletes, children, ..Proposal::default() })
    }
}

fn told(plan: &Plan) -> Vec<(Action, String)> {
    plan.steps.iter().map(|step| (step.action(), step.key().unwrap().to_string())).collect()
}

fn fields(result: Result<Plan, Refused>) -> Vec<String> {
    match result {
        Err(Refused::Fields(errors)) => errors.iter().map(ToString::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_new_changed_or_the_same_is_told_apart() {
    let mut world = World::default();
    let created = world.apply(BASE);
    assert_eq!(created.len(), 4);
    assert!(created.iter().all(|(action, _)| *action == Action::Create));
    let again = world.apply(BASE);
    assert!(again.iter().all(|(action, _)| *action == Action::Unchanged));
    let changed = world.apply(&BASE.replace("[{membership: staff}]", "[{membership: all}]"));
    let updated: Vec<_> = changed.iter().filter(|(a, _)| *a == Action::Update).collect();
    assert_eq!(updated, [&(Action::Update, "RoleBinding/acme/readers".to_owned())]);
    let gone = world.delete(&["Server/acme/billing"], Children::Keep).unwrap();
    assert_eq!(told(&gone), [(Action::Delete, "Server/acme/billing".to_owned())]);
}

#[test]
fn a_change_is_refused_for_what_it_breaks_elsewhere() {
    let mut world = World::new();
    let before = world.set.clone();
    let errors = fields(world.delete(&["Role/acme/reader"], Children::Keep));
    assert!(errors[0].contains("RoleBinding/acme/readers"), "{errors:?}");
    let orphan = CREDENTIAL.replace("group: acme", "group: nobody");
    let errors = world.refused(&orphan);
    assert!(errors[0].contains("there is no Group nobody"), "{errors:?}");
    assert_eq!(world.set, before);
}

#[test]
fn what_was_broken_before_does_not_block_others() {
    let mut world = World::new();
    // Broken by a build that admitted more.
    world.set.remove(&ResourceKey::parse("Role/acme/reader").unwrap());
    assert_eq!(world.apply(ACCOUNT).len(), 1);
    let binding = BASE.split("---").nth(2).unwrap();
    let errors = world.refused(binding);
    assert!(errors[0].contains("RoleBinding/acme/readers"), "its own document is: {errors:?}");
    world.apply(BASE.split("---").nth(1).unwrap());
}

#[test]
fn a_group_goes_with_its_children_or_not_at_all() {
    let mut world = World::new();
    let errors = fields(world.delete(&["Group/acme"], Children::Keep));
    assert!(errors.iter().any(|e| e.contains("and 2 more") && e.contains("cascade")), "{errors:?}");
    let plan = world.delete(&["Group/acme"], Children::Delete).unwrap();
    assert_eq!(plan.steps.len(), 4);
    assert!(world.set.is_empty());
    let missing = world.delete(&["Group/acme"], Children::Delete);
    assert!(matches!(missing, Err(Refused::Missing(key)) if key.to_string() == "Group/acme"));
}

#[test]
fn an_equal_secret_is_no_change_and_an_old_one_goes() {
    let mut world = World::new();
    world.apply(CREDENTIAL);
    assert_eq!(world.secrets.len(), 1);
    assert_eq!(world.apply(CREDENTIAL)[0].0, Action::Unchanged);
    let before: Vec<_> = world.secrets.keys().cloned().collect();
    assert_eq!(world.apply(&CREDENTIAL.replace("s3cr3t", "n3w"))[0].0, Action::Update);
    let after: Vec<_> = world.secrets.keys().cloned().collect();
    assert_eq!((after.len(), after == before), (1, false), "the id changes with the secret");
    // As `get` shows it, with another header name.
    let shown = CREDENTIAL.replace("s3cr3t", &format!("{{secret: {}}}", after[0]));
    assert_eq!(world.apply(&shown.replace("X-Api-Key", "X-Key"))[0].0, Action::Update);
    assert_eq!(world.secrets.len(), 1);
    let plan = world.delete(&["Credential/acme/key"], Children::Keep).unwrap();
    assert_eq!(plan.secrets_gone, after);
}

#[test]
fn a_secret_cannot_be_borrowed() {
    let mut world = World::new();
    world.apply(CREDENTIAL);
    let id = world.secrets.keys().next().unwrap().clone();
    let thief = CREDENTIAL.replace("s3cr3t", &format!("{{secret: {id}}}"));
    let errors = world.refused(&thief.replace("name: key", "name: thief"));
    assert!(errors[0].contains("spec.header.value"), "{errors:?}");
}

#[test]
fn tokens_are_kept_and_not_written_by_operators() {
    let mut world = World::new();
    world.apply(ACCOUNT);
    let key = ResourceKey::parse("ServiceAccount/acme/ci").unwrap();
    let token = ApiTokenEntry { id: "t1".into(), sha256: Default::default(), expires: None };
    let account = ServiceAccount {
        display_name: Some("CI".into()),
        tokens: vec![token],
        ..ServiceAccount::default()
    };
    let document = settled(Resource::new(key.clone(), Spec::ServiceAccount(account)).unwrap());
    let minted =
        Proposal { documents: vec![document], tokens: Tokens::AsProposed, ..Proposal::default() };
    assert_eq!(world.take(&minted).unwrap().steps[0].action(), Action::Update);
    assert_eq!(world.apply(ACCOUNT)[0].0, Action::Unchanged);
    assert_eq!(world.apply(&ACCOUNT.replace("CI", "Robot"))[0].0, Action::Update);
    let Spec::ServiceAccount(stored) = &world.set.get(&key).unwrap().spec else { panic!() };
    assert_eq!(stored.tokens.len(), 1);
    let forged = ACCOUNT.replace(
        "{displayName: CI}",
        &format!("{{tokens: [{{id: mine, sha256: '{}'}}]}}", "a".repeat(64)),
    );
    let errors = world.refused(&forged);
    assert!(errors[0].contains("spec.tokens[0]") && errors[0].contains("minted"), "{errors:?}");
}

#[test]
fn too_much_is_refused() {
    let mut world = World::new();
    let one = "---\napiVersion: weir/v1\nkind: Region\nmetadata: {name: rNUMBER}\nspec: {}\n";
    let many = |count| (0..count).map(|n| one.replace("NUMBER", &format!("{n}"))).collect();
    let fits: String = many(bounds::APPLY_DOCUMENTS_MAX);
    assert_eq!(world.apply(&fits).len(), bounds::APPLY_DOCUMENTS_MAX);
    let mut proposal = world.read(&fits);
    proposal.deletes.push(ResourceKey::parse("Region/r0").unwrap());
    assert!(matches!(world.take(&proposal), Err(Refused::TooLarge(_))));
}

#[test]
fn catalogs_go_with_their_versions() {
    let mut world = World::new();
    let catalog = weir_model::resource::Catalog {
        server: "billing".parse().unwrap(),
        version: "v1".parse().unwrap(),
        era: weir_model::resource::ObservedEra::Modern,
        server_info: serde_json::json!({}),
        capabilities: serde_json::json!({}),
        instructions: None,
        entries: vec![],
        waiting: vec![],
        waiting_instructions: None,
        absent: vec![],
    };
    let key = ResourceKey::parse("Catalog/acme/billing.v1").unwrap();
    let resource = Resource::new(key.clone(), Spec::Catalog(catalog)).unwrap();
    world.set.insert(Arc::new(resource));
    let refused = fields(world.delete(&["Catalog/acme/billing.v1"], Children::Keep));
    assert!(refused[0].contains("control plane alone"), "{refused:?}");
    world.apply(&BASE.replace("name: v1", "name: v2"));
    assert!(world.set.get(&key).is_none());
}
