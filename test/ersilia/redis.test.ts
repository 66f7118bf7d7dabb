import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { createClient } from '@redis/client'
import test, { type ExecutionContext, type Implementation } from 'ava'
import { freePort } from '../../bench/harness/free-port.js'
import { startServer, stopCleanly, temporaryFolder } from '../helpers/server.js'
import { untilSome } from '../helpers/waiting.js'

const PROGRAM = 'redis-server'
const hasRedis = spawnSync(PROGRAM, ['--version']).status === 0

function testWithRedis(title: string, implementation: Implementation<[]>): void {
  if (hasRedis) test.serial(title, implementation)
  else test.skip(`${title} (skipped: ${PROGRAM} is not installed)`, implementation)
}

async function startRedis(t: ExecutionContext) {
  const port = await freePort()
  const child = spawn(
    PROGRAM,
    ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--dir', temporaryFolder(t)],
    { stdio: 'ignore' },
  )
  const exited = once(child, 'exit')
  const url = `redis://127.0.0.1:${port}`
  const client = createClient({ url, socket: { reconnectStrategy: () => 20 } })
  client.on('error', () => {})
  t.teardown(async () => {
    client.destroy()
    child.kill('SIGKILL')
    await exited
  })
  await client.connect()
  const stop = async () => {
    child.kill('SIGKILL')
    await exited
  }
  return { url, client, stop }
}

async function run(url: string, query: string, smiles: string[]): Promise<(number | null)[][]> {
  const response = await fetch(`${url}/run?orient=values&${query}`, {
    method: 'POST',
    body: JSON.stringify(smiles),
  })
  return (await response.json()) as (number | null)[][]
}

testWithRedis('all workers share the rows in Redis, in the layout of ersilia-pack', async (t) => {
  const { url: redisUrl, client, stop } = await startRedis(t)
  const { server, url } = await startServer(t, { args: ['--workers', '2', '--redis-url', redisUrl] })
  const [[phenol], , [propanol]] = (await run(url, 'fetch_cache=true&save_cache=true', [
    'Oc1ccccc1',
    'nonsense',
    'CCCO',
  ])) as [[number], unknown, [number]]
  t.deepEqual(
    { ...(await client.hGetAll('cache:eos0lgp')) },
    {
      Oc1ccccc1: JSON.stringify([phenol]),
      CCCO: JSON.stringify([propanol]),
    },
  )
  t.is(await client.get('eos0lgp:header'), '["logp"]')
  const week = 7 * 24 * 3600
  for (const key of ['cache:eos0lgp', 'eos0lgp:header']) {
    const ttl = await client.ttl(key)
    t.true(ttl > week - 600 && ttl <= week, `${key}: ${ttl}`)
  }
  // Rows stored by another server are used unless they do not fit the columns.
  await client.hSet('cache:eos0lgp', { C: '[42]', CC: '[1, 2]', CCC: 'not JSON' })
  for (let i = 0; i < 4; i++)
    t.deepEqual(await run(url, 'fetch_cache=true&cache_only=true', ['C', 'CC', 'CCC', 'CCCC']), [
      [42],
      [null],
      [null],
      [null],
    ])
  t.deepEqual((await run(url, 'fetch_cache=true', ['Oc1ccccc1']))[0], [phenol])
  await stop()
  // Without Redis everything is computed.
  t.deepEqual((await run(url, 'fetch_cache=true&save_cache=true', ['Oc1ccccc1']))[0], [phenol])
  const warned = await untilSome('a warning', () => server.log.find(({ level }) => level === 'warn') ?? null)
  t.regex(warned.msg, /result cache is unavailable/)
  await stopCleanly(t, server)
})
