import { chmodSync, chownSync, mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { messageOf } from '../../../src/errors.js'
import { POINT } from '../../helpers/model-inputs.js'
import { addModel, writeModel } from '../../helpers/onnx-builder.js'
import { type IndexEntry, indexOf } from '../../helpers/repository-index.js'
import {
  type RunningServer,
  type ServerUnderTest,
  spawnServer,
  startServer,
  stopCleanly,
  temporaryFolder,
} from '../../helpers/server.js'
import { inferOutputs } from '../../helpers/v2-client.js'
import { until } from '../../helpers/waiting.js'

const NOBODY = 65534
const isRoot = process.getuid?.() === 0
const IS_INVALID = 'a repository entry is invalid'
const IS_VALID = 'a repository entry is valid again'

/** The output of a model, or the status if the request fails. */
async function answer(url: string, model: string): Promise<string> {
  try {
    const [output] = await inferOutputs({ url, model, inputs: [POINT] })
    return String([...new Float32Array(Uint8Array.from(output?.bytes ?? []).buffer)])
  } catch (thrown) {
    const status = messageOf(thrown).match(/^status (\d+)/)?.[1]
    if (status === undefined) throw thrown
    return status
  }
}

async function post(url: string, path: string): Promise<Response> {
  return await fetch(`${url}${path}`, { method: 'POST' })
}

async function entry(adminUrl: string, name: string, version = '1'): Promise<IndexEntry | undefined> {
  return (await indexOf(adminUrl)).find((one) => one.name === name && one.version === version)
}

async function invalidEntries(adminUrl: string): Promise<number> {
  const text = await (await fetch(`${adminUrl}/metrics`)).text()
  return Number(text.match(/^onecopy_repository_invalid_entries (\d+)$/m)?.[1])
}

function timesLogged({ log }: ServerUnderTest, text: string, model: string): number {
  return log.filter(({ msg, model: named }) => msg === text && named === model).length
}

/** Writes the file completely under another name, then renames it. */
function put(models: string, name: string, bytes: Uint8Array, version = '1'): void {
  const staging = join(models, '.staging')
  writeModel(staging, name, bytes, version)
  mkdirSync(join(models, name), { recursive: true })
  rmSync(join(models, name, version), { recursive: true, force: true })
  renameSync(join(staging, name, version), join(models, name, version))
}

/** Every kind of invalid entry that the scan detects, and one that only compilation detects. */
function writeBadEntries(models: string): void {
  mkdirSync(join(models, 'empty', '1'), { recursive: true })
  writeModel(models, 'json', addModel())
  writeFileSync(join(models, 'json', 'config.json'), '{')
  writeModel(models, 'my model', addModel())
  writeModel(models, 'twice', addModel())
  writeFileSync(join(models, 'twice.onnx'), addModel())
  symlinkSync('/no/such/folder', join(models, 'link'))
  writeModel(models, 'broken', Buffer.from('not a model'))
}

const BAD_ENTRIES: readonly (readonly [name: string, version: string, says: RegExp])[] = [
  ['broken', '1', /expected an ONNX model/],
  ['empty', '1', /expected a file model\.onnx in a version folder/],
  ['json', '1', /config\.json: expected a JSON file/],
  ['link', '', /a broken link to \/no\/such\/folder/],
  ['my model', '', /"my model"/],
  ['twice', '1', /exists twice/],
]

async function assertBadEntries(t: ExecutionContext, adminUrl: string): Promise<void> {
  const index = await indexOf(adminUrl)
  for (const [name, version, says] of BAD_ENTRIES) {
    const found = index.find((one) => one.name === name)
    t.like(found, { version, state: 'UNAVAILABLE' }, name)
    t.regex(found?.reason ?? '', says)
  }
  t.is(index.length, BAD_ENTRIES.length + 1)
}

async function serve(
  t: ExecutionContext,
  args: readonly string[],
  write: (models: string) => void,
): Promise<RunningServer & { models: string }> {
  const models = writeModel(temporaryFolder(t), 'good', addModel())
  write(models)
  return { models, ...(await startServer(t, { models, args: ['--workers', '1', ...args] })) }
}

test.serial('a failed start reports every problem in one message, and nothing is left', async (t) => {
  const models = writeModel(temporaryFolder(t), 'good', addModel())
  writeBadEntries(models)
  writeModel(models, 'half', addModel().subarray(0, 40))
  for (const args of [[], ['--exit-on-error', 'on']]) {
    const server = spawnServer(t, { models, args })
    t.deepEqual(await server.exited, { code: 1, signal: null })
    const fatal = server.log.find(({ level }) => level === 'fatal')
    for (const [, , says] of BAD_ENTRIES) t.regex(fatal?.msg ?? '', says)
    t.regex(fatal?.msg ?? '', /^7 problems: \(1\) .*MODEL_INVALID: model half version 1/)
    t.notRegex(server.stderr, /^\s+at /m, 'no stack')
    t.deepEqual(server.segments(), [])
  }
})

test.serial(
  'with --exit-on-error off valid models are served, and index, log and metric report the others',
  async (t) => {
    const running = await serve(t, ['--exit-on-error', 'off'], writeBadEntries)
    const { server, url, adminUrl } = running
    t.is(await answer(url, 'good'), '11,22')
    t.is(await answer(url, 'broken'), '404')
    await assertBadEntries(t, adminUrl)
    t.like(await entry(adminUrl, 'good'), { state: 'READY', reason: '' })
    t.is(await invalidEntries(adminUrl), BAD_ENTRIES.length)
    for (const name of ['empty', 'json', 'link', 'my model', 'twice'])
      t.is(timesLogged(server, IS_INVALID, name), 1, name)
    t.is(timesLogged(server, 'the model is not served', 'broken'), 1)
    t.is((await fetch(`${adminUrl}/v2/health/ready`)).status, 200)
    await stopCleanly(t, server)
  },
)

test.serial('with --exit-on-error off a server without any model stays up, and is not ready', async (t) => {
  for (const write of [
    () => {},
    (models: string) => void writeModel(models, 'broken', Buffer.from('not a model')),
    (models: string) => void mkdirSync(join(models, 'empty', '1'), { recursive: true }),
  ]) {
    const models = temporaryFolder(t)
    write(models)
    const { server, url, adminUrl } = await startServer(t, {
      models,
      args: ['--workers', '1', '--exit-on-error', 'off'],
    })
    for (const origin of [url, adminUrl]) {
      t.is((await fetch(`${origin}/v2/health/live`)).status, 200)
      t.is((await fetch(`${origin}/v2/health/ready`)).status, 503)
    }
    t.regex(await (await fetch(`${adminUrl}/v2/health/ready`)).text(), /no model is served/)
    t.true((await indexOf(adminUrl)).every(({ state, reason }) => state === 'UNAVAILABLE' && reason !== ''))
    await stopCleanly(t, server)
  }
})

test.serial('a watched repository with invalid entries is served and synchronized', async (t) => {
  const { server, url, adminUrl, models } = await serve(t, ['--watch'], writeBadEntries)
  await assertBadEntries(t, adminUrl)
  put(models, 'late', addModel([3, 3]))
  await until('the new model to be served', async () => (await answer(url, 'late')) === '13,23')
  put(models, 'good', addModel([4, 4]))
  await until('the changed model to be served', async () => (await answer(url, 'good')) === '14,24')
  rmSync(join(models, 'late'), { recursive: true })
  await until('the removed model to be unloaded', async () => (await answer(url, 'late')) === '404')

  writeFileSync(join(models, 'empty', '1', 'model.onnx'), addModel([5, 5]))
  rmSync(join(models, 'json', 'config.json'))
  rmSync(join(models, 'twice.onnx'))
  put(models, 'broken', addModel([6, 6]))
  rmSync(join(models, 'link'))
  renameSync(join(models, 'my model'), join(models, 'my-model'))
  const fixed = { empty: '15,25', json: '11,22', twice: '11,22', broken: '16,26', 'my-model': '11,22' }
  for (const [name, expected] of Object.entries(fixed))
    await until(`${name} to be fixed`, async () => (await answer(url, name)) === expected)
  t.deepEqual(
    (await indexOf(adminUrl)).filter(({ name, reason }) => reason !== '' && name !== 'late'),
    [],
  )
  await until('all entries to be valid', async () => (await invalidEntries(adminUrl)) === 0)
  for (const name of ['empty', 'json', 'link', 'my model', 'twice']) {
    t.is(timesLogged(server, IS_INVALID, name), 1, `${name}: once, not at every scan`)
    t.is(timesLogged(server, IS_VALID, name), 1, name)
  }
  await stopCleanly(t, server)
})

test.serial('a served version that becomes invalid keeps serving until it is fixed or removed', async (t) => {
  const write = (models: string) => {
    for (const name of ['json', 'twice', 'emptied', 'replaced', 'folder', 'partly'])
      writeModel(models, name, addModel())
    writeModel(models, 'partly', addModel([2, 2]), '2')
    writeModel(models, 'json', addModel([2, 2]), '2')
  }
  const { server, url, adminUrl, models } = await serve(t, ['--watch'], write)
  writeFileSync(join(models, 'json', 'config.json'), '{"threads": "many"}')
  writeFileSync(join(models, 'twice.onnx'), addModel([9, 9]))
  for (const name of ['emptied', 'partly']) rmSync(join(models, name, '1', 'model.onnx'))
  rmSync(join(models, 'replaced', '1', 'model.onnx'))
  mkdirSync(join(models, 'replaced', '1', 'model.onnx'))
  rmSync(join(models, 'folder'), { recursive: true })
  symlinkSync('/no/such/folder', join(models, 'folder'))
  const bad = {
    json: /threads/,
    twice: /twice/,
    emptied: /none/,
    partly: /none/,
    replaced: /a folder/,
    folder: /a broken link to/,
  }
  for (const name of Object.keys(bad))
    await server.logged(({ msg, model }) => msg === IS_INVALID && model === name)
  // A scan with an unload has finished once a later change is served.
  put(models, 'good', addModel([7, 7]))
  await until('changes of the others to be served', async () => (await answer(url, 'good')) === '17,27')
  for (const [name, says] of Object.entries(bad)) {
    t.is(await answer(url, `${name}/versions/1`), '11,22', name)
    const listed = await entry(adminUrl, name)
    t.is(listed?.state, 'READY', name)
    t.regex(listed?.reason ?? '', says)
  }
  for (const name of ['json', 'partly']) t.is(await answer(url, name), '12,22')
  t.is(await invalidEntries(adminUrl), 7, 'both versions with the invalid config count')

  writeFileSync(join(models, 'json', 'config.json'), '{"version_policy": {"specific": ["1"]}}')
  await until('its config to be applied again', async () => (await answer(url, 'json/versions/2')) === '404')
  rmSync(join(models, 'twice'), { recursive: true })
  await until('the remaining entry to be served', async () => (await answer(url, 'twice')) === '19,29')
  for (const name of ['emptied', 'replaced', 'folder', 'partly']) {
    rmSync(join(models, name), { recursive: true })
    await until(`${name} to be unloaded`, async () => (await answer(url, name)) === '404')
  }
  await until('all entries to be valid', async () => (await invalidEntries(adminUrl)) === 0)
  await stopCleanly(t, server)
})

test.serial('a failing version does not delay a new version or the unload of a removed one', async (t) => {
  const { server, url, models } = await serve(t, ['--watch'], () => {})
  put(models, 'good', addModel([2, 2]), '2')
  mkdirSync(join(models, 'good', '4'))
  put(models, 'good', Buffer.from('not a model'), '3')
  await until('version 2 to be served', async () => (await answer(url, 'good')) === '12,22')
  await server.logged(({ msg, version }) => msg === 'the model is not served' && version === '3')
  rmSync(join(models, 'good', '1'), { recursive: true })
  await until('version 1 to be unloaded', async () => (await answer(url, 'good/versions/1')) === '404')
  rmSync(join(models, 'good', '2'), { recursive: true })
  put(models, 'other', addModel([3, 3]))
  await until('a later change to be served', async () => (await answer(url, 'other')) === '13,23')
  t.is(await answer(url, 'good'), '12,22', 'no other version is served')
  put(models, 'good', addModel([5, 5]), '5')
  await until('a valid version to take over', async () => (await answer(url, 'good/versions/2')) === '404')
  t.is(await answer(url, 'good'), '15,25')
  await stopCleanly(t, server)
})

test.serial('a watched repository may be empty at startup, and become empty', async (t) => {
  const models = temporaryFolder(t)
  const { server, url, adminUrl } = await startServer(t, { models, args: ['--workers', '1', '--watch'] })
  const isReady = async () => (await fetch(`${url}/v2/health/ready`)).status === 200
  t.false(await isReady())
  put(models, 'm', addModel())
  await until('the first model to be served', async () => (await answer(url, 'm')) === '11,22')
  await until('the server to be ready', isReady)
  t.is((await fetch(`${adminUrl}/v2/health/ready`)).status, 200)
  rmSync(join(models, 'm'), { recursive: true })
  await until('the last model to be unloaded', async () => (await answer(url, 'm')) === '404')
  await until('the server to be not ready', async () => !(await isReady()))
  rmSync(models, { recursive: true })
  await server.logged(({ msg }) => msg === 'cannot scan the model repository')
  put(models, 'm', addModel([8, 8]))
  await until('the restored repository to be served', async () => (await answer(url, 'm')) === '18,28')
  await stopCleanly(t, server)
})

test.serial('under explicit control an invalid entry affects only its own load', async (t) => {
  const { server, url, adminUrl, models } = await serve(
    t,
    ['--model-control', 'explicit', '--load-model', 'good'],
    writeBadEntries,
  )
  t.is(await answer(url, 'good'), '11,22')
  t.like(await entry(adminUrl, 'broken'), { state: 'UNAVAILABLE', reason: 'not loaded' })
  t.regex((await entry(adminUrl, 'json'))?.reason ?? '', /expected a JSON file/)
  t.is(timesLogged(server, IS_INVALID, 'json'), 1)
  t.is(await invalidEntries(adminUrl), BAD_ENTRIES.length - 1, 'other models are not compiled')
  const load = (name: string) => post(adminUrl, `/v2/repository/models/${encodeURIComponent(name)}/load`)
  for (const [name, , says] of BAD_ENTRIES) {
    const refused = await load(name)
    t.is(refused.headers.get('x-error-code'), name === 'broken' ? 'MODEL_INVALID' : 'REPOSITORY_INVALID')
    t.regex(((await refused.json()) as { error: string }).error, says)
  }
  t.is((await load('none')).headers.get('x-error-code'), 'MODEL_NOT_FOUND')
  t.is((await load('good')).status, 200)

  writeModel(models, 'empty', addModel([2, 2]), '2')
  const partly = await load('empty')
  t.is(partly.headers.get('x-error-code'), 'REPOSITORY_INVALID', 'not every version is served')
  t.is(await answer(url, 'empty'), '12,22', 'but the valid one is')
  writeFileSync(join(models, 'empty', 'config.json'), 'no JSON')
  t.is((await load('empty')).headers.get('x-error-code'), 'REPOSITORY_INVALID')
  t.is(await answer(url, 'empty'), '12,22', 'an invalid config unloads nothing')
  t.like(await entry(adminUrl, 'empty', '2'), { state: 'READY' })
  rmSync(join(models, 'empty', 'config.json'))
  rmSync(join(models, 'empty', '1'), { recursive: true })
  t.is((await load('empty')).status, 200)
  t.like(await entry(adminUrl, 'empty', '2'), { state: 'READY', reason: '' })
  await stopCleanly(t, server)
})

test.serial('under explicit control only problems of selected models fail the start', async (t) => {
  const models = writeModel(temporaryFolder(t), 'good', addModel())
  writeBadEntries(models)
  const start = (names: string, ...args: string[]) =>
    spawnServer(t, {
      models,
      args: ['--workers', '1', '--model-control', 'explicit', '--load-model', names, ...args],
    })
  const refused = start('good,json,broken')
  t.deepEqual(await refused.exited, { code: 1, signal: null })
  const fatal = refused.log.find(({ level }) => level === 'fatal')?.msg ?? ''
  t.regex(fatal, /^2 problems: .*expected a JSON file.*expected an ONNX model/)
  const unknown = start('none')
  t.deepEqual(await unknown.exited, { code: 1, signal: null })
  t.is(unknown.log.find(({ level }) => level === 'fatal')?.code, 'MODEL_NOT_FOUND')
  const tolerant = start('good,json,broken,none', '--exit-on-error', 'off')
  const { url } = await tolerant.ready()
  t.is(await answer(url, 'good'), '11,22')
  await stopCleanly(t, tolerant)
})

/** A server of a user other than root, which cannot read everything. */
function asNobody(t: ExecutionContext, models: string, args: readonly string[] = []) {
  if (!isRoot) return { models, args }
  const [segmentDir, cacheDir] = [temporaryFolder(t, '/dev/shm'), temporaryFolder(t)]
  for (const dir of [segmentDir, cacheDir]) chownSync(dir, NOBODY, NOBODY)
  chmodSync(models, 0o755)
  const wrap = (command: readonly string[]) => [
    ...['setpriv', `--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups'],
    ...command,
  ]
  return { models, args, segmentDir, cacheDir, wrap }
}

test.serial('an unreadable lost+found of a volume has no effect', async (t) => {
  const models = writeModel(temporaryFolder(t), 'good', addModel())
  mkdirSync(join(models, 'lost+found'), { mode: 0o700 })
  if (!isRoot) chmodSync(join(models, 'lost+found'), 0)
  t.teardown(() => chmodSync(join(models, 'lost+found'), 0o700))
  for (const args of [[], ['--watch']]) {
    const { server, url, adminUrl } = await startServer(t, asNobody(t, models, ['--workers', '1', ...args]))
    t.is(await answer(url, 'good'), '11,22')
    t.deepEqual(await indexOf(adminUrl), [{ name: 'good', version: '1', state: 'READY', reason: '' }])
    t.deepEqual(
      server.log.filter(({ level }) => level === 'error' || level === 'warn'),
      [],
    )
    await stopCleanly(t, server)
  }
})

test.serial('a model that becomes unreadable keeps serving, and the index has the reason', async (t) => {
  const models = writeModel(temporaryFolder(t), 'good', addModel())
  writeModel(models, 'sealed', addModel())
  t.teardown(() => chmodSync(join(models, 'sealed'), 0o755))
  const { server, url, adminUrl } = await startServer(t, asNobody(t, models, ['--workers', '1', '--watch']))
  chmodSync(join(models, 'sealed'), 0)
  await server.logged(({ msg, model }) => msg === IS_INVALID && model === 'sealed')
  put(models, 'good', addModel([2, 2]))
  await until('changes of the others to be served', async () => (await answer(url, 'good')) === '12,22')
  t.is(await answer(url, 'sealed'), '11,22')
  const listed = await entry(adminUrl, 'sealed')
  t.is(listed?.state, 'READY')
  t.regex(listed?.reason ?? '', /EACCES/)
  chmodSync(join(models, 'sealed'), 0o755)
  await until('the entry to be valid again', async () => (await entry(adminUrl, 'sealed'))?.reason === '')
  await stopCleanly(t, server)
})
