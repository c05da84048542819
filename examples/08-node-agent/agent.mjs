// What Node agents do all day: worker threads, children, a server and fetch, files in HOME, the workdir and /tmp.
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { Worker } from "node:worker_threads";

const worker = new Worker("require('node:worker_threads').parentPort.postMessage(6 * 7)", { eval: true });
const answer = await new Promise((done, failed) => worker.once("message", done).once("error", failed));
console.log(`a worker thread says ${answer}`);

const child = execFileSync(process.execPath, ["-p", "'a child of node ' + process.version.slice(0, 1)"]);
console.log(child.toString().trim());
console.log(execFileSync("sh", ["-c", "echo a shell"]).toString().trim());

const server = createServer((_, response) => response.end("over its own loopback")).listen(0, "127.0.0.1");
await new Promise((done) => server.once("listening", done));
console.log(`fetched ${await (await fetch(`http://127.0.0.1:${server.address().port}/`)).text()}`);
server.close();
server.closeAllConnections();

// As npm and others write their settings: a new file, then a rename over the old one.
const settings = join(homedir(), ".config", "agent");
mkdirSync(settings, { recursive: true });
writeFileSync(join(settings, "new"), "{}");
renameSync(join(settings, "new"), join(settings, "settings.json"));
const scratch = mkdtempSync(join(tmpdir(), "agent-"));
rmSync(scratch, { recursive: true });
writeFileSync("result.json", JSON.stringify({ answer }));
console.log("wrote result.json");
