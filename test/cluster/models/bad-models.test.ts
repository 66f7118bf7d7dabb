import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import {
  addModel,
  ELEMENT,
  graph,
  intAttribute,
  modelBytes,
  node,
  sequence,
  value,
  writeModel,
} from '../../helpers/onnx-builder.js'
import { spawnServer, temporaryFolder } from '../../helpers/server.js'

const CAST_TO_INT4 = modelBytes(
  graph({
    input: [value('x', ELEMENT.float, [2])],
    output: [value('y', ELEMENT.int4, [2])],
    node: [node('Cast', ['x'], ['y'], { attribute: [intAttribute('to', ELEMENT.int4)] })],
  }),
)

const SEQUENCE_INPUT = modelBytes(
  graph({
    input: [sequence('x', ELEMENT.float)],
    output: [value('y', ELEMENT.int64, [])],
    node: [node('SequenceLength', ['x'], ['y'])],
  }),
)

const UNKNOWN_OPERATOR = modelBytes(
  graph({
    input: [value('x', ELEMENT.float, [2])],
    output: [value('y', ELEMENT.float, [2])],
    node: [node('NoSuchOperator', ['x'], ['y'])],
  }),
)

interface BadRepository {
  readonly title: string
  readonly code: string
  /** The expected message. */
  readonly says: RegExp
  readonly write: (dir: string) => void
}

const BAD: readonly BadRepository[] = [
  {
    title: 'a file that is not an ONNX model',
    code: 'MODEL_INVALID',
    says: /broken.*expected an ONNX model/s,
    write: (dir) => void writeModel(dir, 'broken', Buffer.from('this is a text file, not a model\n')),
  },
  {
    title: 'an empty file',
    code: 'MODEL_INVALID',
    says: /broken.*no graph in 0 bytes/s,
    write: (dir) => void writeModel(dir, 'broken', new Uint8Array(0)),
  },
  {
    title: 'a truncated model',
    code: 'MODEL_INVALID',
    says: /broken.*truncated/s,
    write: (dir) => {
      const bytes = addModel()
      writeModel(dir, 'broken', bytes.subarray(0, Math.floor(bytes.length / 2)))
    },
  },
  {
    title: 'a model with an int4 output, which aborts the runtime',
    code: 'MODEL_UNSUPPORTED',
    says: /output "y" has element type int4/,
    write: (dir) => void writeModel(dir, 'broken', CAST_TO_INT4),
  },
  {
    title: 'a model whose input is a sequence',
    code: 'MODEL_UNSUPPORTED',
    says: /input "x" is a sequence: expected every input to be a tensor/,
    write: (dir) => void writeModel(dir, 'broken', SEQUENCE_INPUT),
  },
  {
    title: 'an unknown operator',
    code: 'MODEL_UNSUPPORTED',
    says: /NoSuchOperator/,
    write: (dir) => void writeModel(dir, 'broken', UNKNOWN_OPERATOR),
  },
  {
    title: 'a model name with a slash',
    code: 'REPOSITORY_INVALID',
    says: /org\/model\/1\/model\.onnx.*cannot contain "\/"/s,
    write: (dir) => void writeModel(dir, join('org', 'model'), addModel()),
  },
  {
    title: 'a model name with a space',
    code: 'REPOSITORY_INVALID',
    says: /"my model"/,
    write: (dir) => void writeModel(dir, 'my model', addModel()),
  },
  {
    title: 'a version folder without a model',
    code: 'REPOSITORY_INVALID',
    says: /expected a file model\.onnx/,
    write: (dir) => void mkdirSync(join(dir, 'broken', '1'), { recursive: true }),
  },
  {
    title: 'a model folder without a version',
    code: 'REPOSITORY_INVALID',
    says: /broken\/model\.onnx.*VERSION/s,
    write: (dir) => {
      mkdirSync(join(dir, 'broken'))
      writeFileSync(join(dir, 'broken', 'model.onnx'), addModel())
    },
  },
  {
    title: 'an empty repository',
    code: 'REPOSITORY_INVALID',
    says: /no model in/,
    write: () => {},
  },
]

for (const { title, code, says, write } of BAD) {
  test.serial(`${title} fails the start with a clear error, and nothing is left`, async (t) => {
    const models = temporaryFolder(t)
    write(models)
    // A valid model next to the invalid one: its segment must not stay either.
    if (title !== 'an empty repository') writeModel(models, 'good', addModel())
    const server = spawnServer(t, { models })
    t.deepEqual(await server.exited, { code: 1, signal: null })
    const fatal = server.log.find((line) => line.level === 'fatal')
    t.is(fatal?.code, code, server.stderr)
    t.regex(fatal?.msg ?? '', says)
    t.notRegex(server.stderr, /^\s+at /m, 'no stack')
    t.deepEqual(server.segments(), [])
  })
}
