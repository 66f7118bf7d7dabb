/**
 * Connections to a known worker. Clients cannot choose a worker, and a server does not say which one
 * answered. The kernel knows: /proc/net/tcp has the inode of the server's socket, and /proc/PID/fd shows
 * which process has it open. Source: proc_net_tcp(5).
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { Agent } from 'node:http'
import { type Answer, send } from './client.js'
import type { InferRequest } from './requests.js'
import type { RunningServer } from './servers.js'

const LOOPBACK_HEX = '0100007F'
const ESTABLISHED = '01'
const MAX_ATTEMPTS_PER_CONNECTION = 50

function hexAddress(port: number): string {
  return `${LOOPBACK_HEX}:${port.toString(16).toUpperCase().padStart(4, '0')}`
}

function serverSocketInode(serverPort: number, clientPort: number): string | null {
  const local = hexAddress(serverPort)
  const remote = hexAddress(clientPort)
  for (const line of readFileSync('/proc/net/tcp', 'latin1').split('\n')) {
    const fields = line.trim().split(/\s+/)
    if (fields[1] === local && fields[2] === remote) return fields[9] ?? null
  }
  return null
}

/** Ports of clients with a connection to a port of this machine. */
export function clientPortsOf(serverPort: number): number[] {
  return readFileSync('/proc/net/tcp', 'latin1')
    .split('\n')
    .map((line) => line.trim().split(/\s+/))
    .filter(([, local, , state]) => local === hexAddress(serverPort) && state === ESTABLISHED)
    .map(([, , remote = '']) => Number.parseInt(remote.split(':')[1] ?? '', 16))
}

function openFiles(pid: number): string[] {
  try {
    return readdirSync(`/proc/${pid}/fd`)
  } catch {
    // The process has exited.
    return []
  }
}

function hasSocket(pid: number, inode: string): boolean {
  for (const fd of openFiles(pid)) {
    try {
      if (readlinkSync(`/proc/${pid}/fd/${fd}`) === `socket:[${inode}]`) return true
    } catch {
      // The file was closed meanwhile.
    }
  }
  return false
}

/** Pid of the worker that holds the server's end of a connection; null if it is closed. */
export function ownerOf(
  server: Pick<RunningServer, 'port' | 'workerPids'>,
  clientPort: number,
): number | null {
  const inode = serverSocketInode(server.port, clientPort)
  if (inode === null) return null
  return server.workerPids.find((pid) => hasSocket(pid, inode)) ?? null
}

/** One keep-alive connection. Reconnects after the server closes it. */
export class Connection {
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 1 })
  readonly #server: RunningServer
  #localPort = 0
  /** The worker at the other end at the last check. */
  ownerPid: number | null = null

  constructor(server: RunningServer) {
    this.#server = server
  }

  async send(request: InferRequest): Promise<Answer> {
    const answer = await send({ agent: this.#agent, port: this.#server.port, request })
    if (answer.localPort !== this.#localPort) {
      this.#localPort = answer.localPort
      this.ownerPid = ownerOf(this.#server, answer.localPort)
    }
    return answer
  }

  close(): void {
    this.#agent.destroy()
  }
}

/** Opens connections until `count` of them reach the worker `ownerPid`, and closes the others. */
export async function connectTo(options: {
  readonly server: RunningServer
  readonly ownerPid: number
  readonly count: number
  /** Sent once on each connection: the worker is unknown until it accepts the connection. */
  readonly probe: InferRequest
}): Promise<Connection[]> {
  const { server, ownerPid, count, probe } = options
  const connections: Connection[] = []
  for (let attempt = 0; connections.length < count; attempt++) {
    if (attempt >= count * MAX_ATTEMPTS_PER_CONNECTION) {
      throw new Error(
        `${server.name}: worker ${ownerPid} took ${connections.length} of ${attempt} connections`,
      )
    }
    const connection = new Connection(server)
    await connection.send(probe)
    if (connection.ownerPid === ownerPid) connections.push(connection)
    else connection.close()
  }
  return connections
}

/** Sends `count` requests to each worker, over a connection to that worker. */
export async function sendToEach(
  server: RunningServer,
  { requests, count }: { readonly requests: readonly InferRequest[]; readonly count: number },
): Promise<void> {
  for (const ownerPid of server.workerPids) {
    const probe = requests[0] as InferRequest
    const [connection] = await connectTo({ server, ownerPid, count: 1, probe })
    if (connection === undefined) throw new Error(`no connection to worker ${ownerPid}`)
    for (let index = 0; index < count; index++) {
      const { status } = await connection.send(requests[index % requests.length] as InferRequest)
      if (status !== 200) throw new Error(`${server.name}: expected status 200, got ${status}`)
      if (connection.ownerPid !== ownerPid) throw new Error(`${server.name}: a connection changed its worker`)
    }
    connection.close()
  }
}
