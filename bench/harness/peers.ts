/**
 * Servers in other languages, as far as the reader has them: each a folder of bench/peers with a `peer.json` that says
 * what must be there and how it is started. They are sent the same requests and land in the same tables.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { z } from 'zod'
import { freePort } from './free-port.js'
import { PACKAGE_ROOT } from './paths.js'
import { processTree } from './processes.js'
import { type RunningServer, singleServer } from './servers.js'
import type { StartOptions, Variant } from './variants.js'

const PEERS_DIR = join(PACKAGE_ROOT, 'bench', 'peers')

const PeerSchema = z.strictObject({
  about: z.string(),
  /** A program that exits with 0 where the peer is installed; the same placeholders as in `command`. */
  check: z.array(z.string()).min(1),
  /**
   * {python}: that of the peer's own .venv, {folder}: the peer's, {repository}, {model}, {path}: of the model,
   * {port}, {workers}, {scratch}: a folder that goes with the bench.
   */
  command: z.array(z.string()).min(1),
  env: z.record(z.string(), z.string()).default({}),
  encodings: z.array(z.enum(['json', 'binary'])).min(1),
  /** Answers 200 to a GET when requests may come. */
  readyPath: z.string().startsWith('/'),
  /** How it is had, in a few words. */
  install: z.string(),
})
type Peer = z.infer<typeof PeerSchema>

function fillIn(text: string, places: Readonly<Record<string, string>>): string {
  return text.replaceAll(/\{([a-z]+)\}/g, (whole, name: string) => places[name] ?? whole)
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
  const check = peer.check.map((text) => fillIn(text, fixed))
  return {
    name,
    about: peer.about,
    missing: isInstalled(check) ? null : `it is not installed here (${peer.install})`,
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
  const { stage, model, workers, name, peer, fixed } = options
  const port = await freePort()
  const places = {
    ...fixed,
    repository: model.repositoryDir,
    model: model.name,
    path: model.path,
    port: String(port),
    workers: String(workers),
    scratch: stage.folder(tmpdir(), `onecopy-bench-${name}-`),
  }
  const [command = '', ...args] = peer.command.map((text) => fillIn(text, places))
  const env = Object.entries(peer.env).map(([key, text]) => [key, fillIn(text, places)])
  const child = await stage.start({
    ...{ name, command, args, env: Object.fromEntries(env) as Record<string, string>, hasChannel: false },
    probe: { port, path: fillIn(peer.readyPath, places) },
  })
  await child.ready
  return { ...singleServer(child, port), workerPids: processTree(child.pid).slice(1) }
}

/** Every folder that describes one. */
export function peerNames(): string[] {
  if (!existsSync(PEERS_DIR)) return []
  return readdirSync(PEERS_DIR, { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && existsSync(join(PEERS_DIR, entry.name, 'peer.json')))
    .map((entry) => entry.name)
}

let found: readonly Variant[] | undefined

/** All of them; looked for once, because asking takes a moment each. */
export function peerVariants(): readonly Variant[] {
  found ??= peerNames().map(peerVariant)
  return found
}
