import { create } from '@bufbuild/protobuf'
import test from 'ava'
import { TensorProtoSchema } from '../../src/onnx/onnx_pb.js'
import { Session } from '../../src/runtime/session.js'
import type { Tensor } from '../../src/tensor.js'
import { ELEMENT, graph, modelBytes, node, value } from '../helpers/onnx-builder.js'

const STRING_DATA_FIELD = 6
const LENGTH_DELIMITED = 2

/** Answers with the constants that are asked for by number. */
async function session(texts: readonly Uint8Array[]): Promise<Session> {
  const constants = create(TensorProtoSchema, {
    name: 'texts',
    dims: [BigInt(texts.length)],
    dataType: ELEMENT.string,
  })
  constants.$unknown = texts.map((text) => ({
    no: STRING_DATA_FIELD,
    wireType: LENGTH_DELIMITED,
    data: Uint8Array.of(text.length, ...text),
  }))
  return Session.load({
    graph: modelBytes(
      graph({
        initializer: [constants],
        input: [value('x', ELEMENT.int64, ['n']), value('t', ELEMENT.string, ['n'])],
        output: [value('y', ELEMENT.string, ['n']), value('u', ELEMENT.string, ['n'])],
        node: [node('Gather', ['texts', 'x'], ['y']), node('Identity', ['t'], ['u'])],
      }),
    ),
    folder: null,
    form: 'original',
    inputs: [
      { name: 'x', datatype: 'INT64', shape: [-1] },
      { name: 't', datatype: 'BYTES', shape: [-1] },
    ],
    outputs: [
      { name: 'y', datatype: 'BYTES', shape: [-1] },
      { name: 'u', datatype: 'BYTES', shape: [-1] },
    ],
    threads: 1,
  })
}

async function answers(one: Session, index: bigint, text: string): Promise<unknown[]> {
  const inputs: Tensor[] = [
    { name: 'x', datatype: 'INT64', shape: [1], data: BigInt64Array.of(index) },
    { name: 't', datatype: 'BYTES', shape: [1], data: [text] },
  ]
  return one.run(inputs, ['y', 'u']).outputs.map(({ data }) => data[0])
}

test("a model's texts arrive whole, with NUL and all; bytes that are not UTF-8 are an error", async (t) => {
  const one = await session([
    Buffer.from('a\0b'),
    Buffer.from('\ufeffé😀'),
    Buffer.from([0x61, 0xff, 0x62]),
    Buffer.from(''),
  ])
  t.deepEqual(await answers(one, 0n, 'x'), ['a\0b', 'x'])
  t.deepEqual(await answers(one, 1n, ''), ['\ufeffé😀', ''])
  t.deepEqual(await answers(one, 3n, '\ufffd'), ['', '\ufffd'])
  const refused = { code: 'MODEL_RUN_FAILED', message: /output "y", element 0: expected UTF-8/ }
  await t.throwsAsync(answers(one, 2n, 'x'), refused)
  await one.close()
})

test('U+FFFD in a model is a character as any other', async (t) => {
  const one = await session([Buffer.from('\ufffd')])
  t.deepEqual(await answers(one, 0n, 'x'), ['\ufffd', 'x'])
  await one.close()
})
