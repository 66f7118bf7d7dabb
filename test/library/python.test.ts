import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { stopCleanly, temporaryFolder } from '../helpers/server.js'
import { serveAdd, served, serveWide, untilReleased, wideRow } from './owner.js'
import { PYTHON_MODULE, PYTHON_PATH, testWithPython } from './python-environment.js'
import { Runner } from './runner.js'

/** What a short program prints, as JSON. */
function python(program: string, env: NodeJS.ProcessEnv = {}): unknown {
  const { status, stdout, stderr } = spawnSync('python3', ['-c', program], {
    env: { ...process.env, PYTHONPATH: PYTHON_PATH, ...env },
    encoding: 'utf8',
  })
  if (status !== 0) throw new Error(stderr)
  return JSON.parse(stdout)
}

testWithPython('the standard library is enough to run a resident model', [], async (t) => {
  t.true(PYTHON_MODULE.endsWith('/src/python/onecopy.py'))
  const { server, replace } = await serveAdd(t, [1, 2])
  const env = { ONECOPY_SEGMENT_DIR: server.segmentDir }
  // -S: without site-packages, so without numpy.
  const bare = (program: string) => {
    const run = spawnSync('python3', ['-S', '-c', program], {
      env: { ...process.env, PYTHONPATH: dirname(PYTHON_MODULE), ...env },
      encoding: 'utf8',
    })
    if (run.status !== 0) throw new Error(run.stderr)
    return JSON.parse(run.stdout)
  }
  const ask = `
import json, onecopy
from array import array
y = onecopy.run("add", {"x": onecopy.Tensor(array("f", [10, 20, 30, 40]), [2, 2])}, outputs=["y"])["y"]
assert list(onecopy.run("add", {"x": [10, 20]})["y"].data) == list(y.data)[:2]
print(json.dumps([y.datatype, y.shape, list(y.data)]))`
  t.deepEqual(bare(ask), ['FP32', [2, 2], [11, 22, 31, 42]])
  await replace([5, 5])
  t.deepEqual(bare(ask), ['FP32', [2, 2], [15, 25, 35, 45]])
  const refused = (call: string) =>
    bare(`
import json, onecopy
try:
    ${call}
    print(json.dumps("answered"))
except onecopy.Error as thrown:
    print(json.dumps([thrown.code, str(thrown)]))`) as [string, string]
  t.is(refused('onecopy.run("add", {"z": [1, 2]})')[0], 'TENSOR_INVALID')
  t.is(refused('onecopy.run("add", {})')[0], 'TENSOR_INVALID')
  t.is(refused('onecopy.run("add", {"x": onecopy.Tensor([1.0, 2.0, 3.0], [1, 3])})')[0], 'TENSOR_INVALID')
  const [code, message] = refused('onecopy.run("missing", {})')
  t.is(code, 'MODEL_NOT_RESIDENT')
  t.regex(message, /onecopy load MODEL\.onnx --name missing/)
  t.is(refused('onecopy.run("add", {}, segment_dir="/no/such")')[0], 'SEGMENT_FOLDER_INVALID')
  t.is(refused('onecopy.attach("add")')[0], 'RUNTIME_UNAVAILABLE')
  await stopCleanly(t, server)
})

testWithPython('numpy arrays are accepted and returned', ['numpy'], async (t) => {
  const { server, url } = await serveWide(t)
  const row = wideRow()
  const answer = python(
    `
import json, numpy, onecopy
x = numpy.array(json.loads('${JSON.stringify(row)}'), dtype="float32").reshape(1, -1)
y = onecopy.run("wide", {"x": x})["y"]
try:
    onecopy.run("wide", {"x": x.astype("float64")})
except onecopy.Error as thrown:
    assert thrown.code == "TENSOR_INVALID", thrown
print(json.dumps([y.dtype.name, list(y.shape), y.reshape(-1).tolist()]))`,
    { ONECOPY_SEGMENT_DIR: server.segmentDir },
  ) as [string, number[], number[]]
  t.is(answer[0], 'float32')
  t.deepEqual(answer[2], [...(await served(url, row))])
  await stopCleanly(t, server)
})

/** Attaches, answers a row that is written to it, and stays until its input ends. */
const HOLDER = `
import json, sys, numpy, onecopy
session = onecopy.attach("wide")
for line in sys.stdin:
    x = numpy.array(json.loads(line), dtype="float32").reshape(1, -1)
    print(json.dumps(session.run(None, {"x": x})[0].reshape(-1).tolist()), flush=True)
`

/** Memory of a segment in one process: mapped, its proportional share, and private. */
function segmentMemory(pid: number): {
  readonly rss: number
  readonly pss: number
  readonly anonymous: number
} {
  const sums = { rss: 0, pss: 0, anonymous: 0 }
  let isSegment = false
  for (const line of readFileSync(`/proc/${pid}/smaps`, 'latin1').split('\n')) {
    if (/^[0-9a-f]+-[0-9a-f]+ /.test(line)) isSegment = line.includes('model.segment')
    const [, field = '', kilobytes] = /^(Rss|Pss|Anonymous):\s+(\d+) kB/.exec(line) ?? []
    if (isSegment && kilobytes !== undefined)
      sums[field.toLowerCase() as keyof typeof sums] += 1024 * Number(kilobytes)
  }
  return sums
}

testWithPython(
  'a session of onnxruntime reads the pages of the workers, as two Node.js processes do',
  ['numpy', 'onnxruntime'],
  async (t) => {
    const { server, url } = await serveWide(t)
    await untilReleased(server)
    const { segmentDir } = server
    const runners = [new Runner(t), new Runner(t)]
    for (const runner of runners) await runner.attach('wide', { segmentDir })
    const holders = [1, 2].map(() => {
      const child = spawn('python3', ['-c', HOLDER], {
        env: { ...process.env, PYTHONPATH: PYTHON_PATH, ONECOPY_SEGMENT_DIR: segmentDir },
        stdio: ['pipe', 'pipe', 'inherit'],
      })
      t.teardown(() => child.kill('SIGKILL'))
      return child
    })
    const row = wideRow(3)
    const expected = [...(await served(url, row))]
    for (const runner of runners) t.deepEqual([...(await runner.run(row, [1, row.length]))], expected)
    for (const { stdin, stdout } of holders) {
      stdin.write(`${JSON.stringify(row)}\n`)
      let output = ''
      while (!output.endsWith('\n')) output += String((await once(stdout, 'data'))[0])
      t.deepEqual(JSON.parse(output), expected, 'bit for bit')
    }
    const pids = [...runners.map(({ process }) => process.pid), ...holders.map(({ pid }) => pid)]
    const held = pids.map((pid) => segmentMemory(pid as number))
    for (const { rss, pss, anonymous } of held) {
      t.true(rss > 7_000_000, `${rss}`)
      t.true(pss < rss / 3, `${pss} of ${rss}: shared with the worker and the other three`)
      t.is(anonymous, 0)
    }
    // Their leases have ended: one copy in shared memory again.
    await untilReleased(server, 2)
    t.regex(String(python('import json, onecopy; print(json.dumps(onecopy.__doc__))')), /InferenceSession/)
    await stopCleanly(t, server)
    // The pages stay for those who have them.
    for (const { stdin, stdout } of holders) {
      stdin.write(`${JSON.stringify(row)}\n`)
      let output = ''
      while (!output.endsWith('\n')) output += String((await once(stdout, 'data'))[0])
      t.deepEqual(JSON.parse(output), expected)
      stdin.end()
    }
    for (const runner of runners) await runner.close()
  },
)

testWithPython('another version of onnxruntime is rejected', ['numpy', 'onnxruntime'], async (t) => {
  const { server } = await serveAdd(t, [1, 2])
  const folder = temporaryFolder(t)
  writeFileSync(join(folder, 'onnxruntime.py'), '__version__ = "1.2.3"\n')
  const code = python(
    `
import json, onecopy
try:
    onecopy.attach("add")
except onecopy.Error as thrown:
    print(json.dumps(str(thrown)))`,
    { PYTHONPATH: `${folder}:${PYTHON_PATH}`, ONECOPY_SEGMENT_DIR: server.segmentDir },
  )
  t.regex(
    String(code),
    /SEGMENT_INVALID.*compiled for onnxruntime [\d.]+, this process has 1\.2\.3: pip install/,
  )
  await stopCleanly(t, server)
})
