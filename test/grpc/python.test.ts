import { spawn, spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { toBinary } from '@bufbuild/protobuf'
import { FileDescriptorProtoSchema } from '@bufbuild/protobuf/wkt'
import test from 'ava'
import { file_inference } from '../../src/grpc/schema/inference_pb.js'
import { addModel, writeModel } from '../helpers/onnx-builder.js'
import { startServer, stopCleanly, temporaryFolder } from '../helpers/server.js'
import { PROJECT_ROOT } from '../helpers/shared.js'

const CLIENT = join(PROJECT_ROOT, 'test', 'grpc', 'client.py')

/** A Python that has grpcio; null where there is none. */
function pythonWithGrpc(): string | null {
  const pythons = ['python3', '/usr/bin/python3']
  return (
    pythons.find((python) => spawnSync(python, ['-c', 'import grpc, google.protobuf']).status === 0) ?? null
  )
}

const python = pythonWithGrpc()
const testWithGrpcio = python === null ? test.skip : test
const why = python === null ? " (skipped: no Python has grpcio, Debian's python3-grpcio)" : ''

testWithGrpcio(`Python's grpcio calls every method as tritonclient.grpc does${why}`, async (t) => {
  if (python === null) return
  const models = writeModel(temporaryFolder(t), 'add', addModel())
  const args = [
    ...['--grpc-port', '0', '--workers', '1', '--repository-api', 'public', '--system-shared-memory', 'on'],
    ...['--model-control', 'explicit', '--load-model', '*'],
  ]
  const { server } = await startServer(t, { models, args })
  const { grpcPort } = await server.logged(({ msg, role }) => msg === 'ready' && role === 'primary')
  const descriptor = join(temporaryFolder(t), 'inference.desc')
  writeFileSync(descriptor, toBinary(FileDescriptorProtoSchema, file_inference.proto))
  const client = spawn(python, [CLIENT, `127.0.0.1:${grpcPort}`, descriptor], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const [stdout, stderr] = await Promise.all([text(client.stdout), text(client.stderr)])
  t.not(stdout, '', stderr)
  const stream = Array.from({ length: 20 }, (_, i) => [String(i), [i + 1, i + 2]])
  t.like(JSON.parse(stdout), {
    ...{ live: true, ready: true, name: 'onecopy', modelReady: true, inputs: [['x', 'FP32', [-1, 2]]] },
    infer: { id: 'one', version: '1', values: [2, 4] },
    ...{
      requestId: 'from-python',
      index: [['add', 'READY']],
      regions: 0,
      cuda: 0,
      trace: ['OFF'],
      log: true,
    },
    unloaded: { code: 'NOT_FOUND', error: 'MODEL_NOT_FOUND' },
    cudaRegister: { code: 'INVALID_ARGUMENT', error: 'REQUEST_INVALID' },
    // Counted anew since the model was loaded again.
    ...{ stream, success: 20 },
  })
  await stopCleanly(t, server)
})
