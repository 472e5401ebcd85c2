"""What docket is linked from: an SBOM (CycloneDX 1.6) and the texts of all licences.

    python3 deploy/sbom.py SBOM.json LICENCES-FOLDER
"""

import json
import pathlib
import shutil
import subprocess
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent


def linked():
    """The packages that a release links: what it needs to run, not what builds or tests it. Cargo resolves features for the whole
    workspace, so a few may be among them that only a feature for tests brings."""
    host = subprocess.run(["rustc", "-vV"], capture_output=True, text=True, check=True).stdout
    triple = next(line.split(": ")[1] for line in host.splitlines() if line.startswith("host: "))
    command = ["cargo", "metadata", "--locked", "--format-version=1", "--features=vendored", f"--filter-platform={triple}"]
    told = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    packages = {package["id"]: package for package in told["packages"]}
    nodes = {node["id"]: node for node in told["resolve"]["nodes"]}
    root = next(p["id"] for p in told["packages"] if p["name"] == "docket")
    seen, todo = {}, [root]
    while todo:
        here = todo.pop()
        if here in seen:
            continue
        # A procedural macro runs in the compiler, and so does what it needs; what carries C sources needs only what compiles them.
        macro = any("proc-macro" in target["kind"] for target in packages[here]["targets"])
        needs = [] if macro or packages[here]["name"].endswith("-src") else [
            dependency["pkg"]
            for dependency in nodes[here]["deps"]
            # What a build brings as source of a C library (openssl-src) is linked, too.
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]) or packages[dependency["pkg"]]["name"].endswith("-src")
        ]
        if not macro:
            seen[here] = needs
        todo += needs
    kept = {here: [need for need in needs if need in seen] for here, needs in seen.items()}
    return root, {here: (packages[here], needs) for here, needs in kept.items()}


def reference(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def main(sbom, folder):
    root, all_linked = linked()
    locked = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    sums = {(p["name"], p["version"]): p.get("checksum") for p in locked}
    folder.mkdir(parents=True)
    components, dependencies, without = [], [], []
    for here, (package, needs) in sorted(all_linked.items(), key=lambda item: reference(item[1][0])):
        dependencies.append({"ref": reference(package), "dependsOn": sorted(reference(all_linked[n][0]) for n in needs)})
        if here == root:
            continue
        component = {
            "type": "library",
            "bom-ref": reference(package),
            "purl": reference(package),
            "name": package["name"],
            "version": package["version"],
            "licenses": [{"expression": (package["license"] or "NOASSERTION").replace("/", " OR ")}],
        }
        if checksum := sums.get((package["name"], package["version"])):
            component["hashes"] = [{"alg": "SHA-256", "content": checksum}]
        if package["repository"]:
            component["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
        components.append(component)
        source = pathlib.Path(package["manifest_path"]).parent
        texts = [
            path
            for path in sorted(source.rglob("*"))
            if path.is_file() and path.name.upper().startswith(("LICENSE", "LICENCE", "COPYING", "NOTICE", "COPYRIGHT", "UNLICENSE"))
            and path.suffix not in (".rs", ".py", ".pl", ".go", ".c", ".h")
        ]
        target = folder / f"{package['name']}-{package['version']}"
        for path in texts:
            to = target / path.relative_to(source)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, to)
        if not texts and source.is_relative_to(ROOT):
            target.mkdir()
            shutil.copyfile(ROOT / "LICENSE", target / "LICENSE")
        elif not texts:
            without.append(f"{package['name']} {package['version']}: {package['license']}")
    if without:
        note = "These name their licence, and bring no text of it:\n" + "\n".join(without) + "\n"
        (folder / "WITHOUT-TEXT").write_text(note)
    package = all_linked[root][0]
    bom = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "application", "bom-ref": reference(package), "name": "docket", "version": package["version"], "licenses": [{"expression": package["license"]}]}},
        "components": components,
        "dependencies": dependencies,
    }
    sbom.write_text(json.dumps(bom, indent=1) + "\n")


main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
