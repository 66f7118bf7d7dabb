/**
 * A pod without a cluster: the server as PID 1 of a namespace of its own, not as root, without capabilities, its root
 * read-only, a small /dev/shm that outlives it as a pod's emptyDir outlives a container, and writable folders for cache and
 * temporary files.
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
/** The end of its parent is the end of a pod: `--kill-child` is forgotten when the user changes, so it is said again. */
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

/** Volumes of a pod, and containers started on them one after the other. */
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

  /** Seen as /tmp/models inside. */
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

  /** Whether this machine lets a pod be made; null where it does, else why not. */
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

  /** Its PID 1, as it is seen from outside. */
  async mainPid(): Promise<number> {
    const { pid } = this.server.process
    return await untilSome('the container to have a process', () => {
      const text = readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1')
      return Number(text.split(' ')[0]) || null
    })
  }

  async signal(signal: NodeJS.Signals): Promise<Exit> {
    process.kill(await this.mainPid(), signal)
    return await this.server.exited
  }

  /** A field of PID 1's status. Source: proc_pid_status(5). */
  async status(field: string): Promise<string> {
    const text = readFileSync(`/proc/${await this.mainPid()}/status`, 'latin1')
    return text.match(new RegExp(`^${field}:\\s*(.*)$`, 'm'))?.[1] ?? ''
  }
}

/** Null, with a word, where no pod can be made. */
export function makePod(t: ExecutionContext, shmSize: string): Pod | null {
  const shm = smallTmpfs(t, `size=${shmSize}`)
  if (shm === null) {
    t.pass('skipped: mounting a tmpfs needs root')
    return null
  }
  const pod = new Pod(t, shm)
  const why = pod.whyNot()
  if (why === null) return pod
  t.log(`skipped: no namespaces of its own here: ${why}`)
  t.pass()
  return null
}
