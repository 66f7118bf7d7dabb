/**
 * Malicious clients in a separate process: `node attackers.js --port N --idle N`. On command they hold idle
 * connections, send headers and bodies one byte at a time and reconnect when they are disconnected, and reset
 * connections within a body. They disconnect with resets. Several loopback source addresses avoid running
 * out of ports.
 */
import { connect, type Socket } from 'node:net'
import { parseArgs } from 'node:util'
import type { AttackOrder, AttackReport } from './attack-messages.js'

const SLOW_HEADERS = 200
const SLOW_BODIES = 200
const RESETS_PER_TICK = 10
const TICK_MS = 100
const DRIP_EVERY_TICKS = 10
const SPREAD_MS = 2000
const SOURCES = 8
/** Concurrent connection attempts, below any backlog. */
const MAX_OPENING = 64

const { values } = parseArgs({
  options: { port: { type: 'string' }, idle: { type: 'string' }, path: { type: 'string' } },
})
const port = Number(values.port)
const idleCount = Number(values.idle)

const IDLE = 'GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n'
const SLOW_HEADER = 'GET /v2/health/live HTTP/1.1\r\nHost: x\r\nX-Slow: '
const SLOW_BODY = `POST ${values.path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n${'{"inputs":'.padEnd(60_000)}`

let isAttacking = false
let nextSource = 0
let slowHeadersClosed = 0
let slowBodiesClosed = 0
let resets = 0
const idle = new Set<Socket>()
const slow = new Set<Socket>()

function open(): Socket {
  const localAddress = `127.0.0.${2 + (nextSource++ % SOURCES)}`
  return connect({ host: '127.0.0.1', port, localAddress })
    .on('error', () => {})
    .resume()
}

/** Resolves after the first response, or when the connection is closed. */
function openIdle(): Promise<void> {
  return new Promise((resolve) => {
    const socket = open()
    socket.once('connect', () => socket.write(IDLE))
    socket.once('data', () => {
      idle.add(socket)
      resolve()
    })
    socket.once('close', () => {
      idle.delete(socket)
      resolve()
    })
  })
}

function openSlow(bytes: string, onClosed: () => void): void {
  if (!isAttacking) return
  const socket = open()
  slow.add(socket)
  socket.once('connect', () => socket.write(bytes))
  socket.once('close', () => {
    slow.delete(socket)
    if (!isAttacking) return
    onClosed()
    openSlowSoon(bytes, onClosed)
  })
}

/** Spreads reconnects over time, to avoid bursts. */
function openSlowSoon(bytes: string, onClosed: () => void): void {
  setTimeout(() => openSlow(bytes, onClosed), Math.random() * SPREAD_MS)
}

function resetOne(): void {
  const socket = open()
  socket.once('connect', () => socket.write(SLOW_BODY, () => socket.resetAndDestroy()))
  resets++
}

async function refillIdle(): Promise<void> {
  while (isAttacking && idle.size < idleCount) {
    const missing = Math.min(MAX_OPENING, idleCount - idle.size)
    await Promise.all(Array.from({ length: missing }, openIdle))
  }
}

let ticks = 0
let refilling = Promise.resolve()
let timer: NodeJS.Timeout | undefined

function tick(): void {
  ticks++
  for (let i = 0; i < RESETS_PER_TICK; i++) resetOne()
  if (ticks % DRIP_EVERY_TICKS !== 0) return
  for (const socket of slow) if (socket.writable) socket.write('x')
  refilling = refilling.then(refillIdle)
}

async function attack(): Promise<void> {
  isAttacking = true
  await refillIdle()
  for (let i = 0; i < SLOW_HEADERS; i++) openSlowSoon(SLOW_HEADER, () => slowHeadersClosed++)
  for (let i = 0; i < SLOW_BODIES; i++) openSlowSoon(SLOW_BODY, () => slowBodiesClosed++)
  timer = setInterval(tick, TICK_MS)
}

async function leave(): Promise<void> {
  isAttacking = false
  clearInterval(timer)
  await refilling
  for (const socket of [...idle, ...slow]) socket.resetAndDestroy()
}

process.on('message', async ({ action }: AttackOrder) => {
  const idleBefore = idle.size
  await (action === 'attack' ? attack() : leave())
  const idleConnections = action === 'attack' ? idle.size : idleBefore
  const report: AttackReport = { action, idleConnections, slowHeadersClosed, slowBodiesClosed, resets }
  process.send?.(report)
})
process.on('disconnect', () => process.exit(0))
process.on('SIGTERM', () => process.exit(0))
process.stderr.write(`${JSON.stringify({ msg: 'ready' })}\n`)
