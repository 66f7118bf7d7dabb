import { Socket } from 'node:net'
import test from 'ava'
import { Connections, isIdle } from '../../src/http/connections.js'

function answerOne(connections: Connections, socket: Socket, willStay = true): boolean {
  connections.begin(socket, willStay)
  return connections.end(socket)
}

test('connections with one request are neither counted as busy nor shed', (t) => {
  const connections = new Connections()
  connections.shed()
  for (let i = 0; i < 10; i++) {
    t.false(answerOne(connections, new Socket()))
    t.false(answerOne(connections, new Socket(), false))
  }
  const load = connections.takeLoad()
  t.is(load.busyConnections, 0)
  t.is(load.requests, 0)
})

test('of busy connections only the next one with a response is shed', (t) => {
  const connections = new Connections()
  const [first, second] = [new Socket(), new Socket()]
  for (const socket of [first, first, second, second]) t.false(answerOne(connections, socket))
  t.is(connections.takeLoad().busyConnections, 2)
  connections.shed()
  t.true(answerOne(connections, second))
  t.false(answerOne(connections, first))
  t.is(connections.takeLoad().busyConnections, 1)
})

test('a connection with pipelined requests is not shed', (t) => {
  const connections = new Connections()
  const socket = new Socket()
  answerOne(connections, socket)
  connections.shed()
  connections.begin(socket, true)
  connections.begin(socket, true)
  t.false(connections.end(socket))
  t.false(connections.end(socket))
  t.false(answerOne(connections, socket))
  t.is(connections.takeLoad().busyConnections, 0)
})

test('a closed connection is not busy', async (t) => {
  const connections = new Connections()
  const socket = new Socket()
  answerOne(connections, socket)
  answerOne(connections, socket)
  const closed = new Promise((resolve) => socket.once('close', resolve))
  socket.destroy()
  await closed
  t.is(connections.takeLoad().busyConnections, 0)
})

test('the load covers the time since the last report, and includes requests in flight', (t) => {
  const connections = new Connections()
  const socket = new Socket()
  answerOne(connections, socket)
  connections.begin(socket, true)
  const first = connections.takeLoad()
  t.is(first.requests, 1)
  t.true(first.inFlightMs > 0 && first.inFlightMs <= first.elapsedMs)
  const second = connections.takeLoad()
  t.is(second.requests, 0)
  t.false(isIdle(second))
  t.true(Math.abs(second.inFlightMs - second.elapsedMs) < 1e-6)
  connections.end(socket)
  connections.takeLoad()
  t.false(isIdle(connections.takeLoad()), 'its client is likely to send more')
})

test('a client is alone if no other one is connected, or the others have been idle', (t) => {
  let nowMs = 0
  const connections = new Connections(() => nowMs)
  const [client, probe] = [new Socket(), new Socket()]
  const isAloneIn = (socket: Socket): boolean => {
    connections.begin(socket, true)
    const { isAlone } = connections
    connections.end(socket)
    return isAlone
  }
  t.false(connections.isAlone, 'no request')
  t.true(isAloneIn(client))
  t.false(isAloneIn(probe), 'the other one has just sent a request')
  t.false(isAloneIn(client))
  nowMs += 1001
  t.true(isAloneIn(client))
  t.false(isAloneIn(probe))
  nowMs += 1001
  connections.begin(client, true)
  connections.begin(probe, true)
  t.false(connections.isAlone, 'two requests in flight')
})
