/**
 * A pod without a cluster. The server is PID 1 of a new namespace, without root and capabilities, with a
 * read-only root. A small /dev/shm outlives it, as an emptyDir outlives a container. Folders for the cache
 * and temporary files are writable.
 */
import { spawnSync } from 'node:child_process'
import { chmodSync, mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { ExecutionContext } from 'ava'
import { smallTmpfs } from '../../helpers/limits.js'
import { type Exit, type ServerUnderTest, spawnServer, temporaryFolder } from '../../helpers/server.js'
import { PROJECT_ROOT } from '../../helpers/shared.js'
import { untilSome } from '../../helpers/waiting.js'

const USER = '1000'
/** The pod ends with its parent. `--kill-child` is lost when the user changes, so it is set again. */
const LAUNCH = `
set -e
root=$1 shm=$2 tmp=$3; shift 3
mount --make-rprivate /
mount --rbind / "$root"
mount -o remount,bind,ro "$root"
mount -t proc proc "$root/proc"
mount --bind "$shm" "$root/dev/shm"
mount --bind "$tmp" "$root/tmp"
cd "$root"
exec chroot "$root" setpriv --reuid ${USER} --regid ${USER} --clear-groups --no-new-privs --bounding-set=-all --pdeathsig KILL "$@"
`

/** Volumes of a pod, and consecutive containers that use them. */
export class Pod {
  readonly #t: ExecutionContext
  readonly #shm: string
  readonly #tmp: string

  constructor(t: ExecutionContext, shm: string) {
    this.#t = t
    this.#shm = shm
    chmodSync(shm, 0o1777)
    this.#tmp = temporaryFolder(t)
    chmodSync(this.#tmp, 0o1777)
    mkdirSync(join(this.#tmp, 'models'))
  }

  /** Mounted as /tmp/models. */
  get modelsDir(): string {
    return join(this.#tmp, 'models')
  }

  #wrap(command: readonly string[]): readonly string[] {
    const namespaces = ['--mount', '--pid', '--ipc', '--fork', '--kill-child', '--mount-proc']
    const root = temporaryFolder(this.#t)
    return ['unshare', ...namespaces, 'sh', '-c', LAUNCH, 'sh', root, this.#shm, this.#tmp, ...command]
  }

  start({ args = [], cgroup }: { args?: readonly string[]; cgroup?: string } = {}): Container {
    const server = spawnServer(this.#t, {
      segmentDir: this.#shm,
      wrap: (command) => this.#wrap(command),
      ...(cgroup === undefined ? {} : { cgroup }),
      args: ['--segment-dir', '/dev/shm', '--cache-dir', '/tmp/cache', '--models', '/tmp/models', ...args],
    })
    return new Container(server)
  }

  /** Why a pod cannot be created on this machine; null if it can. */
  whyNot(): string | null {
    const command = this.#wrap([
      process.execPath,
      '--eval',
      `require('node:fs').accessSync('${PROJECT_ROOT}dist')`,
    ])
    const [program = '', ...args] = command
    const { status, stderr, error } = spawnSync(program, args, { encoding: 'utf8' })
    return status === 0 ? null : `${error?.message ?? stderr}`.trim()
  }
}

export class Container {
  readonly server: ServerUnderTest

  constructor(server: ServerUnderTest) {
    this.server = server
  }

  /** Its PID 1, in the outer namespace. */
  async mainPid(): Promise<number> {
    const { pid } = this.server.process
    return await untilSome('the container to have a process', () => {
      const text = readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1')
      return Number(text.split(' ')[0]) || null
    })
  }

  /** Kills every process before any of them can react to the death of another. */
  async killFrozen(): Promise<Exit> {
    const pid = await this.mainPid()
    const workers = readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1').split(' ').filter(Boolean)
    for (const one of [pid, ...workers.map(Number)]) process.kill(one, 'SIGSTOP')
    process.kill(pid, 'SIGKILL')
    return await this.server.exited
  }

  async signal(signal: NodeJS.Signals): Promise<Exit> {
    process.kill(await this.mainPid(), signal)
    return await this.server.exited
  }

  /** A status field of PID 1. Source: proc_pid_status(5). */
  async status(field: string): Promise<string> {
    const text = readFileSync(`/proc/${await this.mainPid()}/status`, 'latin1')
    return text.match(new RegExp(`^${field}:\\s*(.*)$`, 'm'))?.[1] ?? ''
  }
}

/** Null, with a log line, if no pod can be created. */
export function makePod(t: ExecutionContext, shmSize: string): Pod | null {
  const shm = smallTmpfs(t, `size=${shmSize}`)
  const pod = new Pod(t, shm)
  const why = pod.whyNot()
  if (why === null) return pod
  t.log(`skipped: cannot create namespaces: ${why}`)
  t.pass()
  return null
}
