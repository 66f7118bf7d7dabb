import { renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { credentials } from '@grpc/grpc-js'
import test, { type ExecutionContext } from 'ava'
import { type Certificate, makeCertificate } from '../helpers/certificates.js'
import { addRequest, GrpcClient, GrpcFailure } from '../helpers/grpc-client.js'
import { addModel, writeModel } from '../helpers/onnx-builder.js'
import { startServer, stopCleanly, temporaryFolder } from '../helpers/server.js'
import { until } from '../helpers/waiting.js'

/** Both files whole, as an operator replaces them. */
function install(folder: string, { cert, key }: Certificate): void {
  for (const [name, text] of [
    ['key.pem', key],
    ['cert.pem', cert],
  ] as const) {
    writeFileSync(join(folder, `.${name}`), text)
    renameSync(join(folder, `.${name}`), join(folder, name))
  }
}

function clientOf(address: string, trusted: Certificate, own?: Certificate): GrpcClient {
  const pem = [own?.key, own?.cert].map((one) => (one === undefined ? null : Buffer.from(one)))
  const secure = credentials.createSsl(Buffer.from(trusted.cert), pem[0] ?? null, pem[1] ?? null)
  return new GrpcClient(address, { secure })
}

async function serveTls(t: ExecutionContext, folder: string, more: readonly string[] = []) {
  const models = writeModel(temporaryFolder(t), 'add', addModel())
  const files = ['--tls-cert', join(folder, 'cert.pem'), '--tls-key', join(folder, 'key.pem'), ...more]
  const { server } = await startServer(t, { models, args: ['--grpc-port', '0', '--workers', '2', ...files] })
  const { grpcPort } = await server.logged(({ msg, role }) => msg === 'ready' && role === 'primary')
  return { server, address: `localhost:${grpcPort}` }
}

test.serial('TLS with the certificate of REST, renewed while it serves', async (t) => {
  const folder = temporaryFolder(t)
  const [first, second] = await Promise.all([makeCertificate(), makeCertificate()])
  install(folder, first)
  const { server, address } = await serveTls(t, folder)
  const open = clientOf(address, first)
  await open.infer(addRequest([1, 2]))
  const stranger = clientOf(address, second)
  await t.throwsAsync(stranger.infer(addRequest([1, 2]), { deadline: Date.now() + 2000 }), {
    instanceOf: GrpcFailure,
  })
  stranger.close()
  install(folder, second)
  await until('the certificate is renewed', () =>
    server.log.some(({ msg }) => msg.includes('renewed: certificate')),
  )
  const renewed = clientOf(address, second)
  await renewed.infer(addRequest([1, 2]), { deadline: Date.now() + 20_000 })
  await open.infer(addRequest([1, 2]))
  renewed.close()
  open.close()
  await stopCleanly(t, server)
})

test.serial('mutual TLS: a client without a certificate of the authority is turned away', async (t) => {
  const folder = temporaryFolder(t)
  const authority = await makeCertificate({ isCa: true })
  const [own, client] = await Promise.all([
    makeCertificate(),
    makeCertificate({ name: 'client', issuer: authority }),
  ])
  install(folder, own)
  writeFileSync(join(folder, 'ca.pem'), authority.cert)
  const { server, address } = await serveTls(t, folder, ['--tls-ca', join(folder, 'ca.pem')])
  const known = clientOf(address, own, client)
  await known.infer(addRequest([1, 2]))
  const unknown = clientOf(address, own)
  await t.throwsAsync(unknown.infer(addRequest([1, 2]), { deadline: Date.now() + 2000 }), {
    instanceOf: GrpcFailure,
  })
  known.close()
  unknown.close()
  await stopCleanly(t, server)
})
