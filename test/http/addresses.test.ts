import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { loadConfig } from '../../src/config/load.js'
import { addModel, writeModel } from '../helpers/onnx-builder.js'
import { startServer, stopCleanly, temporaryFolder } from '../helpers/server.js'

/** Whether this machine has an IPv6 loopback address. */
function hasIpv6(): boolean {
  try {
    return readFileSync('/proc/net/if_inet6', 'latin1').includes('00000000000000000000000000000001')
  } catch {
    return false
  }
}

const withIpv6 = hasIpv6() ? test : test.skip

withIpv6(
  'an IPv6 address works with and without brackets, from a flag, the environment or a file',
  async (t) => {
    const folder = temporaryFolder(t)
    const models = writeModel(folder, 'add', addModel())
    const file = join(folder, 'config.json')
    writeFileSync(file, JSON.stringify({ host: '[::1]', adminHost: '[::1]' }))
    for (const options of [
      { args: ['--host', '[::1]', '--admin-host', '[::1]'] },
      { args: ['--host', '::1', '--admin-host', '::1'] },
      { args: ['--host', '[::]', '--admin-host', '[::]', '--admin-insecure', 'on'] },
      { args: ['--config', file] },
      { env: { ONECOPY_HOST: '[::1]', ONECOPY_ADMIN_HOST: '[::1]' } },
    ]) {
      const { args = [], env = {} } = options as { args?: string[]; env?: NodeJS.ProcessEnv }
      const { server, url, adminUrl } = await startServer(t, {
        models,
        args: ['--workers', '1', ...args],
        env,
      })
      for (const base of [url, adminUrl]) {
        t.regex(base, /^http:\/\/\[::1?\]:\d+$/)
        const reached = base.replace('[::]', '[::1]')
        t.is((await fetch(`${reached}/v2/health/live`)).status, 200, reached)
      }
      await stopCleanly(t, server)
    }
  },
)

test('invalid addresses are rejected before anything starts', (t) => {
  for (const host of ['[::1]:8080', '[localhost]', '[]', '[127.0.0.1]', '::1]', '[::1'])
    for (const option of ['--host', '--admin-host'])
      t.throws(
        () => loadConfig([option, host], {}),
        { code: 'CONFIG_INVALID', message: /without a port/ },
        host,
      )
  t.is(loadConfig(['--host', '[fe80::1%lo]'], {}).host, 'fe80::1%lo')
})
