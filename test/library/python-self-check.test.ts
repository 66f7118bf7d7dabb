import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import test from 'ava'
import { SEGMENT_FORMAT_VERSION } from '../../src/segment/layout.js'
import { ELEMENT, graph, modelBytes, node, value, wideModel, writeModel } from '../helpers/onnx-builder.js'
import { startServer, stopCleanly, temporaryFolder } from '../helpers/server.js'
import { PYTHON_MODULE, PYTHON_PATH, testWithPython } from './python-environment.js'

const FLOAT16 = 10
const TYPES = {
  FP32: ELEMENT.float,
  FP64: ELEMENT.double,
  FP16: FLOAT16,
  BF16: ELEMENT.bfloat16,
  BOOL: ELEMENT.bool,
  INT8: ELEMENT.int8,
  INT64: ELEMENT.int64,
  BYTES: ELEMENT.string,
}

/** `a = x`, `b = y`: what the inputs were is what the outputs are. */
function copies(element: number): Uint8Array {
  return modelBytes(
    graph({
      input: [value('x', element, ['n', 5]), value('y', element, ['n', 'm'])],
      output: [value('a', element, ['n', 5]), value('b', element, ['n', 'm'])],
      node: [node('Identity', ['x'], ['a']), node('Identity', ['y'], ['b'])],
    }),
  )
}

/** Attaches to every model, and then with each element of its recorded answers changed. */
const PROGRAM = `
import json, sys, onecopy

def changed(element, datatype):
    if datatype == "BYTES":
        return element + "x"
    if datatype == "INT64":
        return str(int(element) + 1)
    if datatype in ("FP16", "BF16"):
        return element ^ 0x4000
    return 1 - element if datatype == "BOOL" else element + 1

head = onecopy._head
found = {}
for name in sys.argv[1:]:
    headers = []
    def remember(file, reference):
        header, graph = head(file, reference)
        headers.append(header)
        return header, graph
    onecopy._head = remember
    onecopy.attach(name)
    check = headers[0]["selfCheck"]
    refusals = []
    for i, output in enumerate(check["outputs"]):
        for j in range(len(output["elements"])):
            def tamper(file, reference):
                header, graph = head(file, reference)
                elements = header["selfCheck"]["outputs"][i]["elements"]
                elements[j] = changed(elements[j], header["outputs"][i]["datatype"])
                return header, graph
            onecopy._head = tamper
            try:
                onecopy.attach(name)
                refusals.append("attached")
            except onecopy.Error as thrown:
                refusals.append(str(thrown))
    found[name] = refusals
print(json.dumps(found))
`

testWithPython(
  'a session of onnxruntime repeats the answer that was recorded, or is refused',
  ['numpy', 'onnxruntime'],
  async (t) => {
    const models = temporaryFolder(t)
    for (const [name, element] of Object.entries(TYPES)) writeModel(models, name, copies(element))
    writeModel(models, 'wide', wideModel(2_000_000))
    const { server } = await startServer(t, { models, args: ['--workers', '1'] })
    const names = [...Object.keys(TYPES), 'wide']
    const { status, stdout, stderr } = spawnSync('python3', ['-c', PROGRAM, ...names], {
      env: { ...process.env, PYTHONPATH: PYTHON_PATH, ONECOPY_SEGMENT_DIR: server.segmentDir },
      encoding: 'utf8',
    })
    t.is(status, 0, stderr)
    const found = JSON.parse(stdout) as Record<string, string[]>
    for (const name of names) {
      const refusals = found[name] ?? []
      t.true(refusals.length > 1, name)
      for (const refusal of refusals)
        t.regex(
          refusal,
          /^SELF_CHECK_FAILED: output '\w+' of the self-check: expected the output recorded/,
          name,
        )
    }
    await stopCleanly(t, server)
  },
)

test('the Python module reads segments of this version', (t) => {
  const [, version] = /^_FORMAT_VERSION = (\d+)$/m.exec(readFileSync(PYTHON_MODULE, 'utf8')) ?? []
  t.is(Number(version), SEGMENT_FORMAT_VERSION)
})
