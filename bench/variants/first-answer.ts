/**
 * Prints the time to the first output of this process, which attaches to a running onecopy or
 * creates a session from the model file. Libraries are loaded before the clock starts. Arguments:
 * attach or create, model name, path, segment folder, input name, elements per row.
 */
import { InferenceSession, Tensor } from 'onnxruntime-node'
import { attach } from '../../cluster/index.js'
import { SESSION_OPTIONS } from './session.js'

const [way, name = '', path = '', segmentDir = '', input = '', elements = ''] = process.argv.slice(2)
const row = new Float32Array(Number(elements))
const startedMs = performance.now()
if (way === 'attach') {
  const model = await attach(name, { segmentDir })
  await model.run({ [input]: { data: row, shape: [1, row.length] } })
  process.stdout.write(`${performance.now() - startedMs}\n`)
  await model.close()
} else {
  const session = await InferenceSession.create(path, SESSION_OPTIONS)
  await session.run({ [input]: new Tensor('float32', row, [1, row.length]) })
  process.stdout.write(`${performance.now() - startedMs}\n`)
  await session.release()
}
