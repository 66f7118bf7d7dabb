/** What a person reads on a terminal when a start fails: one sentence, and what to do. */
import type { ErrorCode, OnecopyError } from '../src/errors.js'

const REMEDIES: Partial<Record<ErrorCode, string>> = {
  ADDRESS_UNAVAILABLE:
    'Stop the process that uses the address, or choose another with --port or --admin-port.',
  REPOSITORY_INVALID: 'Correct the repository, or name another with --models.',
  MODEL_INVALID: 'Check that the file is a complete ONNX model: onecopy inspect FILE.',
  MODEL_UNSUPPORTED: 'onecopy inspect FILE shows what the runtime says about the model.',
  COMPILE_FAILED: 'onecopy inspect FILE shows the compilation alone; --compile-timeout gives it more time.',
  MEMORY_LIMIT: 'Raise the memory limit, or serve with fewer --workers.',
  SEGMENT_SPACE:
    'Make the shared memory larger (in Kubernetes: sizeLimit of /dev/shm), or set --segment-dir.',
  SEGMENT_FOLDER_INVALID: 'Choose a writable folder of your own in a tmpfs with --segment-dir.',
  BUNDLE_INVALID: 'docs/ersilia.md describes what a bundle consists of.',
}

export function startFailureText({ code, message }: OnecopyError): string {
  const remedy = REMEDIES[code] ?? 'docs/errors.md explains the code.'
  return `onecopy: the server cannot start: ${message} (${code})\n${remedy}`
}
