//! The list of all that is in the programs: CycloneDX 1.5, from what Cargo resolved for the target.
//!
//! Made from `cargo metadata` and `Cargo.lock`, both of which are there wherever the programs can be built; no tool to install. What
//! is linked in is followed from the two programs along normal dependencies: what only builds, derives or tests is not in them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

const PROGRAMS: [&str; 2] = ["swarmd", "swarmctl"];

pub(crate) fn write(target: &str, file: &Path) -> anyhow::Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let asked = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", target])
        .output()
        .context("cargo metadata")?;
    ensure!(asked.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&asked.stderr));
    let metadata: Value = serde_json::from_slice(&asked.stdout)?;
    let root = text(&metadata["workspace_root"]);
    let lock = fs::read_to_string(Path::new(root).join("Cargo.lock")).context("Cargo.lock")?;
    let mut list = serde_json::to_string_pretty(&document(&metadata, &checksums(&lock), target)?)?;
    list.push('\n');
    fs::write(file, list).with_context(|| file.display().to_string())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// SHA-256 by name and version, as the lock file holds them.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let field = |block: &str, name: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = \"")?.strip_suffix('"'));
        line.map(str::to_owned)
    };
    let entry = |block: &str| Some(((field(block, "name")?, field(block, "version")?), field(block, "checksum")?));
    lock.split("[[package]]").filter_map(entry).collect()
}

fn document(metadata: &Value, checksums: &BTreeMap<(String, String), String>, target: &str) -> anyhow::Result<Value> {
    let packages: BTreeMap<&str, &Value> = items(&metadata["packages"]).map(|package| (text(&package["id"]), package)).collect();
    let nodes: BTreeMap<&str, &Value> = items(&metadata["resolve"]["nodes"]).map(|node| (text(&node["id"]), node)).collect();
    let roots: Vec<&str> = packages
        .iter()
        .filter(|(_, package)| package["source"].is_null() && PROGRAMS.contains(&text(&package["name"])))
        .map(|(id, _)| *id)
        .collect();
    ensure!(roots.len() == PROGRAMS.len(), "the programs are not among Cargo's packages");
    let reached = linked(&roots, &nodes, &packages);
    let reference = |id: &str| packages.get(id).map(|package| purl(package));
    let components: Vec<Value> = reached.keys().filter_map(|id| packages.get(id)).map(|package| component(package, checksums)).collect();
    let dependencies: Vec<Value> = reached
        .iter()
        .filter_map(|(id, below)| {
            let below: Vec<String> = below.iter().filter_map(|id| reference(id)).collect();
            Some(json!({ "ref": reference(id)?, "dependsOn": below }))
        })
        .collect();
    let version = env!("CARGO_PKG_VERSION");
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": { "type": "application", "bom-ref": "swarm", "name": "swarm", "version": version },
            "properties": [{ "name": "target", "value": target }],
        },
        "components": components,
        "dependencies": dependencies,
    }))
}

/// Every package that is linked into the programs, with those that it links itself.
fn linked<'m>(
    roots: &[&'m str],
    nodes: &BTreeMap<&'m str, &'m Value>,
    packages: &BTreeMap<&'m str, &'m Value>,
) -> BTreeMap<&'m str, BTreeSet<&'m str>> {
    let mut reached = BTreeMap::new();
    let mut next: Vec<&str> = roots.to_vec();
    while let Some(id) = next.pop() {
        if reached.contains_key(id) {
            continue;
        }
        let deps = nodes.get(id).into_iter().flat_map(|node| items(&node["deps"]));
        let is_normal = |dep: &&Value| items(&dep["dep_kinds"]).any(|kind| kind["kind"].is_null());
        let is_code = |id: &&str| packages.get(id).is_some_and(|package| !is_macro(package));
        let below: BTreeSet<&str> = deps.filter(is_normal).map(|dep| text(&dep["pkg"])).filter(is_code).collect();
        next.extend(below.iter().copied());
        reached.insert(id, below);
    }
    reached
}

fn is_macro(package: &Value) -> bool {
    items(&package["targets"]).any(|target| items(&target["kind"]).any(|kind| text(kind) == "proc-macro"))
}

fn purl(package: &Value) -> String {
    format!("pkg:cargo/{}@{}", text(&package["name"]), text(&package["version"]))
}

fn component(package: &Value, checksums: &BTreeMap<(String, String), String>) -> Value {
    let (name, version) = (text(&package["name"]), text(&package["version"]));
    let mut component = json!({
        "type": if package["source"].is_null() && PROGRAMS.contains(&name) { "application" } else { "library" },
        "bom-ref": purl(package),
        "name": name,
        "version": version,
        "purl": purl(package),
    });
    // the old way to write OR
    if let Some(license) = package["license"].as_str() {
        component["licenses"] = json!([{ "expression": license.replace('/', " OR ") }]);
    }
    if let Some(sum) = checksums.get(&(name.to_owned(), version.to_owned())) {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": sum }]);
    }
    component
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_linked_in_is_listed() {
        let package = |id: &str, kind: &str| json!({ "id": id, "name": id, "version": "1.0.0", "license": "MIT/Apache-2.0", "source": if id.starts_with("swarm") { Value::Null } else { json!("registry") }, "targets": [{ "kind": [kind] }] });
        let dep = |id: &str, kind: Value| json!({ "pkg": id, "dep_kinds": [{ "kind": kind }] });
        let metadata = json!({
            "packages": [package("swarmd", "bin"), package("swarmctl", "bin"), package("a", "lib"), package("b", "lib"), package("t", "lib"), package("m", "proc-macro"), package("only-build", "lib")],
            "resolve": { "nodes": [
                { "id": "swarmd", "deps": [dep("a", Value::Null), dep("t", json!("dev")), dep("m", Value::Null), dep("only-build", json!("build"))] },
                { "id": "swarmctl", "deps": [dep("a", Value::Null)] },
                { "id": "a", "deps": [dep("b", Value::Null)] },
            ] },
        });
        let sums = checksums("[[package]]\nname = \"b\"\nversion = \"1.0.0\"\nsource = \"x\"\nchecksum = \"ab\"\n");
        let document = document(&metadata, &sums, "x").unwrap();
        let names: Vec<&str> = items(&document["components"]).map(|c| text(&c["name"])).collect();
        assert_eq!(names, ["a", "b", "swarmctl", "swarmd"]);
        assert_eq!(document["components"][1]["hashes"][0]["content"], "ab");
        assert_eq!(document["components"][0]["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(document["dependencies"][0], json!({ "ref": "pkg:cargo/a@1.0.0", "dependsOn": ["pkg:cargo/b@1.0.0"] }));
    }
}
