import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:http'
import { createServer as createNetServer, type Server } from 'node:net'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { listenOnSocket, MAX_SOCKET_PATH_BYTES, SocketFile } from '../../src/http/unix-socket.js'
import { temporaryFolder } from '../helpers/server.js'

async function close(server: Server): Promise<void> {
  server.close()
  await once(server, 'close')
}

/** A server that publishes its socket at a path, like the primary. */
async function serveOn(t: ExecutionContext, path: string) {
  const file = await SocketFile.claim(path)
  const http = createServer((_, response) => response.end())
  t.teardown(() => http.close())
  await listenOnSocket(http, file.bindPath)
  await file.publish()
  return { file, http }
}

/** The socket of a killed server, which is not unlinked. */
function leaveStaleSocket(path: string): void {
  const script = `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`
  spawnSync(process.execPath, ['-e', script])
}

test('a file other than a socket at the path is rejected and left unchanged', async (t) => {
  const folder = temporaryFolder(t)
  const file = join(folder, 'file')
  writeFileSync(file, 'precious')
  const kinds: Record<string, string> = { file: 'a plain file' }
  symlinkSync(file, join(folder, 'link'))
  kinds.link = 'a symbolic link'
  symlinkSync(join(folder, 'nothing'), join(folder, 'dangling'))
  kinds.dangling = 'a symbolic link'
  mkdirSync(join(folder, 'folder'))
  kinds.folder = 'a folder'
  spawnSync('mkfifo', [join(folder, 'pipe')])
  kinds.pipe = 'a named pipe'
  for (const [name, kind] of Object.entries(kinds)) {
    const error = await t.throwsAsync(SocketFile.claim(join(folder, name)), {
      code: 'ADDRESS_UNAVAILABLE',
    } as never)
    t.true(error?.message.includes(`found ${kind}`), error?.message)
  }
  await t.throwsAsync(SocketFile.claim('/dev/null'), { message: /found a device/ })
  t.deepEqual(readdirSync(folder).sort(), ['dangling', 'file', 'folder', 'link', 'pipe'])
  t.is(readFileSync(file, 'utf8'), 'precious')
})

test('a link to a socket is rejected, with a listening server or without', async (t) => {
  const folder = temporaryFolder(t)
  const { file } = await serveOn(t, join(folder, 'server.sock'))
  symlinkSync(file.path, join(folder, 'link'))
  await t.throwsAsync(SocketFile.claim(join(folder, 'link')), { message: /found a symbolic link/ })
  t.true(lstatSync(join(folder, 'link')).isSymbolicLink())
})

test('a path that is too long for a socket address, counted in bytes, is rejected, and nothing is created', async (t) => {
  const folder = temporaryFolder(t)
  const room = MAX_SOCKET_PATH_BYTES - Buffer.byteLength(folder) - 1
  const { file, http } = await serveOn(t, join(folder, 'x'.repeat(room)))
  t.true(lstatSync(file.path).isSocket())
  await close(http as unknown as Server)
  await file.remove()
  for (const name of ['x'.repeat(room + 1), 'é'.repeat(room / 2 + 1)])
    await t.throwsAsync(SocketFile.claim(join(folder, name)), { message: /at most 107 bytes/ })
  t.deepEqual(readdirSync(folder), [])
})

test('a missing folder is a clear error', async (t) => {
  const folder = temporaryFolder(t)
  await t.throwsAsync(SocketFile.claim(join(folder, 'none', 'x.sock')), {
    message: /expected the folder .*none/,
  })
})

test('the socket of a killed server is replaced', async (t) => {
  const path = join(temporaryFolder(t), 'server.sock')
  leaveStaleSocket(path)
  t.true(lstatSync(path).isSocket())
  const { http, file } = await serveOn(t, path)
  await close(http as unknown as Server)
  await file.remove()
  t.false(existsSync(path))
})

test('the socket of a running server is rejected, and the server keeps answering', async (t) => {
  const path = join(temporaryFolder(t), 'server.sock')
  await serveOn(t, path)
  const before = lstatSync(path).ino
  await t.throwsAsync(SocketFile.claim(path), { message: /another server is listening/ })
  t.is(lstatSync(path).ino, before)
})

test('a server that ends does not remove the socket of its successor', async (t) => {
  const path = join(temporaryFolder(t), 'server.sock')
  const old = await serveOn(t, path)
  // It has closed its socket and has not ended yet.
  await close(old.http as unknown as Server)
  const successor = await serveOn(t, path)
  await old.file.remove()
  t.true(lstatSync(path).isSocket())
  await t.throwsAsync(SocketFile.claim(path), { message: /another server is listening/ })
  await close(successor.http as unknown as Server)
  await successor.file.remove()
  t.deepEqual(readdirSync(join(path, '..')), [])
})

test('of two servers that start simultaneously on one path, one fails', async (t) => {
  const path = join(temporaryFolder(t), 'server.sock')
  const first = await SocketFile.claim(path)
  const second = await SocketFile.claim(path)
  const http = createServer()
  t.teardown(() => http.close())
  await listenOnSocket(http, first.bindPath)
  const other = createNetServer()
  await t.throwsAsync(listenOnSocket(other as never, second.bindPath), { message: /EADDRINUSE/ })
  await first.publish()
  await listenOnSocket(other as never, second.bindPath)
  t.teardown(() => other.close())
  await t.throwsAsync(second.publish(), { message: /another server has taken/ })
})

test('if all workers die, their replacements use the same path', async (t) => {
  const path = join(temporaryFolder(t), 'server.sock')
  const { file, http } = await serveOn(t, path)
  await close(http as unknown as Server)
  const again = createServer((_, response) => response.end())
  t.teardown(() => again.close())
  await listenOnSocket(again, file.bindPath)
  await file.publish()
  await t.throwsAsync(SocketFile.claim(path), { message: /another server is listening/ })
})
