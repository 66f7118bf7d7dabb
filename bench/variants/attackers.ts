/**
 * Clients that mean harm, in a process of their own: `node attackers.js --port N --idle N`. On order they
 * hold idle connections, send headers and bodies a byte at a time and start anew when they are ended, and
 * reset connections in the middle of a body, until they are told to leave. They leave by resets, and come
 * from several loopback addresses, so that ports do not run short.
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
/** Connections that are being opened at once: below any backlog. */
const OPENING_AT_ONCE = 64

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
let slowHeadersEnded = 0
let slowBodiesEnded = 0
let resets = 0
const idle = new Set<Socket>()
const slow = new Set<Socket>()

function open(): Socket {
  const localAddress = `127.0.0.${2 + (nextSource++ % SOURCES)}`
  return connect({ host: '127.0.0.1', port, localAddress })
    .on('error', () => {})
    .resume()
}

/** Resolves when the connection was answered once, or is closed. */
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

function openSlow(bytes: string, onEnded: () => void): void {
  if (!isAttacking) return
  const socket = open()
  slow.add(socket)
  socket.once('connect', () => socket.write(bytes))
  socket.once('close', () => {
    slow.delete(socket)
    if (!isAttacking) return
    onEnded()
    openSlowSoon(bytes, onEnded)
  })
}

/** Spread out: hundreds that are in step would be one burst every few seconds. */
function openSlowSoon(bytes: string, onEnded: () => void): void {
  setTimeout(() => openSlow(bytes, onEnded), Math.random() * SPREAD_MS)
}

function resetOne(): void {
  const socket = open()
  socket.once('connect', () => socket.write(SLOW_BODY, () => socket.resetAndDestroy()))
  resets++
}

async function refillIdle(): Promise<void> {
  while (isAttacking && idle.size < idleCount) {
    const missing = Math.min(OPENING_AT_ONCE, idleCount - idle.size)
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
  for (let i = 0; i < SLOW_HEADERS; i++) openSlowSoon(SLOW_HEADER, () => slowHeadersEnded++)
  for (let i = 0; i < SLOW_BODIES; i++) openSlowSoon(SLOW_BODY, () => slowBodiesEnded++)
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
  const report: AttackReport = { action, idleConnections, slowHeadersEnded, slowBodiesEnded, resets }
  process.send?.(report)
})
process.on('disconnect', () => process.exit(0))
process.on('SIGTERM', () => process.exit(0))
process.stderr.write(`${JSON.stringify({ msg: 'ready' })}\n`)
