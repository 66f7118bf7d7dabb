/** The package as npm packs it, installed into an empty project by the commands of the README. */
import { spawn, spawnSync } from 'node:child_process'
import { copyFileSync, existsSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import test from 'ava'
import { temporaryFolder } from '../helpers/server.js'
import { PROJECT_ROOT } from '../helpers/shared.js'
import { withinDeadline } from '../helpers/waiting.js'

const INSTALL_DEADLINE_MS = 150_000
/** How npm says that the registry cannot be reached. */
const UNREACHABLE = /ENOTFOUND|ECONNREFUSED|ETIMEDOUT|EAI_AGAIN|ENOTCACHED|ERR_SOCKET_TIMEOUT/

function npm(
  cwd: string,
  args: readonly string[],
): { readonly code: number | null; readonly output: string } {
  const { status, stdout, stderr } = spawnSync('npm', args, {
    ...{ cwd, encoding: 'utf8', timeout: INSTALL_DEADLINE_MS },
    // The project's own settings are not those of a user.
    env: Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('npm_'))),
  })
  return { code: status, output: `${stdout}${stderr}` }
}

test.serial(
  'the packed package serves a model from an empty project, without a download of CUDA',
  async (t) => {
    t.timeout(2 * INSTALL_DEADLINE_MS)
    const project = temporaryFolder(t)
    const packed = npm(PROJECT_ROOT, ['pack', '--ignore-scripts', '--pack-destination', project])
    t.is(packed.code, 0, packed.output)
    const [archive = ''] = readdirSync(project).filter((name) => name.endsWith('.tgz'))
    const dependencies = { onecopy: `file:./${archive}` }
    const allowScripts = { 'onnxruntime-node': false }
    writeFileSync(
      join(project, 'package.json'),
      JSON.stringify({ private: true, dependencies, allowScripts }),
    )
    writeFileSync(join(project, '.npmrc'), 'onnxruntime-node-install=skip\n')
    const installed = npm(project, ['install', '--prefer-offline', '--no-audit', '--no-fund'])
    if (installed.code !== 0 && UNREACHABLE.test(installed.output)) {
      t.log('skipped: the registry cannot be reached')
      t.pass()
      return
    }
    t.is(installed.code, 0, installed.output)
    const runtime = join(project, 'node_modules', 'onnxruntime-node', 'bin', 'napi-v6', 'linux', process.arch)
    t.false(
      readdirSync(runtime).some((name) => name.includes('cuda')),
      'CUDA is not downloaded',
    )
    t.true(existsSync(join(project, 'node_modules', '.bin', 'onecopy')))

    const [source = ''] = readdirSync(join(PROJECT_ROOT, 'models', 'logp', '1'))
    copyFileSync(join(PROJECT_ROOT, 'models', 'logp', '1', source), join(project, 'mine.onnx'))
    const settings = {
      ...{ '--port': '0', '--admin-port': '0', '--workers': '1', '--log-format': 'json' },
      ...{ '--segment-dir': temporaryFolder(t, '/dev/shm'), '--cache-dir': temporaryFolder(t) },
    }
    const server = spawn(
      'node_modules/.bin/onecopy',
      ['serve', 'mine.onnx', ...Object.entries(settings).flat()],
      {
        ...{ cwd: project, stdio: ['ignore', 'pipe', 'pipe'] },
      },
    )
    t.teardown(() => server.kill('SIGKILL'))
    const exited = new Promise((resolve) => server.once('exit', resolve))
    const port = new Promise<number>((resolve, reject) => {
      let output = ''
      const take = (line: string) => {
        output += `${line}\n`
        if (line.startsWith('{') && line.includes('"ready"'))
          resolve((JSON.parse(line) as { port: number }).port)
      }
      createInterface({ input: server.stdout }).on('line', take)
      createInterface({ input: server.stderr }).on('line', take)
      void exited.then((code) => reject(new Error(`the server ended with code ${code}:\n${output}`)))
    })
    const url = `http://127.0.0.1:${await withinDeadline('the server to be ready', port)}`
    const metadata = (await (await fetch(`${url}/v2/models/mine`)).json()) as { name: string }
    t.is(metadata.name, 'mine')
    server.kill('SIGTERM')
    t.is(await withinDeadline('the server to end', exited), 0)
  },
)
