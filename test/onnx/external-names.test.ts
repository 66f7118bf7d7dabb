import { spawnSync } from 'node:child_process'
import { appendFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { create, fromBinary, toBinary } from '@bufbuild/protobuf'
import test from 'ava'
import fc from 'fast-check'
import { readExternalNames } from '../../src/onnx/external-names.js'
import { externalFiles, parseModel } from '../../src/onnx/graph.js'
import {
  AttributeProtoSchema,
  FunctionProtoSchema,
  ModelProtoSchema,
  SparseTensorProtoSchema,
  type TensorProto,
  TensorProtoSchema,
} from '../../src/onnx/onnx_pb.js'
import {
  addModel,
  addModelWithExternalData,
  ELEMENT,
  floats,
  graph,
  graphAttribute,
  modelBytes,
  node,
  value,
} from '../helpers/onnx-builder.js'
import { temporaryFolder } from '../helpers/server.js'

function external(location: string): TensorProto {
  const externalData = [
    { key: 'location', value: location },
    { key: 'offset', value: '0' },
  ]
  return create(TensorProtoSchema, { name: location, dataType: ELEMENT.float, dataLocation: 1, externalData })
}

/** Inline weights, and external data in every possible location. */
function everywhere(names: { outer: string; attribute: string; list: string; inner: string }): Uint8Array {
  const attribute = create(AttributeProtoSchema, { name: 'value', type: 4, t: external(names.attribute) })
  const list = create(AttributeProtoSchema, { name: 'values', type: 9, tensors: [external(names.list)] })
  const body = graph({ input: [], output: [], node: [], initializer: [external(names.inner)] })
  return modelBytes(
    graph({
      input: [value('x', ELEMENT.float, [1])],
      output: [value('y', ELEMENT.float, [1])],
      node: [
        node('Constant', [], ['c'], { attribute: [attribute] }),
        node('Custom', ['x'], ['y'], { attribute: [list, graphAttribute('body', body)] }),
      ],
      initializer: [floats('own', [50_000], new Float32Array(50_000).fill(1)), external(names.outer)],
    }),
  )
}

test('the names equal those found by parsing the model, in any location', async (t) => {
  const path = join(temporaryFolder(t), 'model.onnx')
  const name = fc.string({ minLength: 1, maxLength: 200, unit: 'grapheme' })
  const names = fc.record({ outer: name, attribute: name, list: name, inner: name })
  await fc.assert(
    fc.asyncProperty(names, async (given) => {
      const bytes = everywhere(given)
      writeFileSync(path, bytes)
      t.deepEqual(await readExternalNames(path), externalFiles(parseModel(bytes)))
      t.deepEqual(await readExternalNames(path), [...new Set(Object.values(given))].sort())
    }),
    { numRuns: 50 },
  )
})

test('functions and sparse attributes are searched too', async (t) => {
  const model = fromBinary(ModelProtoSchema, addModel())
  const sparseTensor = create(SparseTensorProtoSchema, { values: external('sparse.bin') })
  const attribute = [
    create(AttributeProtoSchema, { name: 'value', type: 4, t: external('function.bin') }),
    create(AttributeProtoSchema, { name: 'sparse', type: 11, sparseTensor }),
  ]
  model.functions.push(
    create(FunctionProtoSchema, { name: 'f', node: [node('Constant', [], ['c'], { attribute })] }),
  )
  const path = join(temporaryFolder(t), 'model.onnx')
  const bytes = toBinary(ModelProtoSchema, model)
  writeFileSync(path, bytes)
  t.deepEqual(await readExternalNames(path), ['function.bin', 'sparse.bin'])
  t.deepEqual(externalFiles(parseModel(bytes)), ['function.bin', 'sparse.bin'])
})

test('a truncated or invalid file gives the names before the error', async (t) => {
  const path = join(temporaryFolder(t), 'model.onnx')
  const bytes = addModelWithExternalData('weights/w.bin')
  for (let end = 0; end < bytes.length; end++) {
    writeFileSync(path, bytes.subarray(0, end))
    const names = await readExternalNames(path)
    t.true(names.length === 0 || names[0] === 'weights/w.bin', `${end}: ${names}`)
  }
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 300 }), async (noise) => {
      writeFileSync(path, noise)
      appendFileSync(path, bytes)
      t.true(Array.isArray(await readExternalNames(path)))
    }),
    { numRuns: 200 },
  )
})

test('missing files, folders and named pipes are not read', async (t) => {
  const dir = temporaryFolder(t)
  const pipe = join(dir, 'pipe')
  spawnSync('mkfifo', [pipe])
  for (const path of [join(dir, 'none'), dir, pipe]) t.deepEqual(await readExternalNames(path), [])
})
