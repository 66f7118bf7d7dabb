/**
 * Servers in other languages, if they are installed. Each is a folder of bench/peers with a `peer.json` that
 * defines how to check and start it. All get the same requests and appear in the same tables.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as z from 'zod'
import { freePort } from './free-port.js'
import { PACKAGE_ROOT } from './paths.js'
import { processTree } from './processes.js'
import { type RunningServer, singleServer } from './servers.js'
import type { StartOptions, Variant } from './variants.js'

const PEERS_DIR = join(PACKAGE_ROOT, 'bench', 'peers')

const PeerSchema = z.strictObject({
  about: z.string(),
  /** A command that exits with 0 if the peer is installed; same placeholders as in `command`. */
  check: z.array(z.string()).min(1),
  /**
   * {python}: the peer's .venv; {folder}: the peer's folder; {repository}, {model}, {path}: the model;
   * {port}, {workers}; {scratch}: a folder that the bench removes.
   */
  command: z.array(z.string()).min(1),
  env: z.record(z.string(), z.string()).default({}),
  encodings: z.array(z.enum(['json', 'binary'])).min(1),
  /** Path that returns 200 to a GET once the peer is ready. */
  readyPath: z.string().startsWith('/'),
  /** How to install it, in a few words. */
  install: z.string(),
})
type Peer = z.infer<typeof PeerSchema>

function substitute(text: string, values: Readonly<Record<string, string>>): string {
  return text.replaceAll(/\{([a-z]+)\}/g, (whole, name: string) => values[name] ?? whole)
}

function readPeer(name: string): Peer {
  const path = join(PEERS_DIR, name, 'peer.json')
  const parsed = PeerSchema.safeParse(JSON.parse(readFileSync(path, 'utf8')))
  if (parsed.success) return parsed.data
  throw new Error(`${path}: ${z.prettifyError(parsed.error)}`)
}

function isInstalled(check: readonly string[]): boolean {
  const [command = '', ...args] = check
  return spawnSync(command, args, { stdio: 'ignore' }).status === 0
}

function peerVariant(name: string): Variant {
  const folder = join(PEERS_DIR, name)
  const peer = readPeer(name)
  const fixed = { folder, python: join(folder, '.venv', 'bin', 'python') }
  const check = peer.check.map((text) => substitute(text, fixed))
  return {
    name,
    about: peer.about,
    missing: isInstalled(check) ? null : `not installed (${peer.install})`,
    encodings: peer.encodings,
    hasKnownWorkers: false,
    start: (options) => startPeer({ ...options, name, peer, fixed }),
  }
}

async function startPeer(
  options: StartOptions & {
    readonly name: string
    readonly peer: Peer
    readonly fixed: Readonly<Record<string, string>>
  },
): Promise<RunningServer> {
  const { stage, model, workers, name, peer, fixed, port = await freePort() } = options
  const values = {
    ...fixed,
    repository: model.repositoryDir,
    model: model.name,
    path: model.path,
    port: String(port),
    workers: String(workers),
    scratch: stage.folder(tmpdir(), `onecopy-bench-${name}-`),
  }
  const [command = '', ...args] = peer.command.map((text) => substitute(text, values))
  const env = Object.entries(peer.env).map(([key, text]) => [key, substitute(text, values)])
  const child = await stage.start({
    ...{ name, command, args, env: Object.fromEntries(env) as Record<string, string>, hasChannel: false },
    probe: { port, path: substitute(peer.readyPath, values) },
  })
  await child.ready
  return { ...singleServer(child, port), workerPids: processTree(child.pid).slice(1) }
}

/** Every folder with a peer.json. */
export function peerNames(): string[] {
  if (!existsSync(PEERS_DIR)) return []
  return readdirSync(PEERS_DIR, { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && existsSync(join(PEERS_DIR, entry.name, 'peer.json')))
    .map((entry) => entry.name)
}

let found: readonly Variant[] | undefined

/** All peers. The result is cached, because every check takes a moment. */
export function peerVariants(): readonly Variant[] {
  found ??= peerNames().map(peerVariant)
  return found
}
