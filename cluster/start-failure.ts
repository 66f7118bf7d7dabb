/** The message on a terminal when a start fails: the error and a remedy. */
import type { ErrorCode, OnecopyError } from '../src/errors.js'

const REMEDIES: Partial<Record<ErrorCode, string>> = {
  ADDRESS_UNAVAILABLE:
    'Stop the process that uses the address, or choose another with --port or --admin-port.',
  REPOSITORY_INVALID: 'Correct the repository, or name another with --models.',
  MODEL_INVALID: 'Check that the file is a complete ONNX model: onecopy inspect FILE.',
  MODEL_UNSUPPORTED: 'onecopy inspect FILE shows the error of the runtime.',
  COMPILE_FAILED: 'onecopy inspect FILE compiles the model alone; --compile-timeout allows more time.',
  MEMORY_LIMIT: 'Raise the memory limit, or serve with fewer --workers.',
  SEGMENT_SPACE: 'Increase the shared memory (in Kubernetes: sizeLimit of /dev/shm), or set --segment-dir.',
  SEGMENT_FOLDER_INVALID: 'Choose a writable folder of your own in a tmpfs with --segment-dir.',
  BUNDLE_INVALID: 'docs/ersilia.md describes the contents of a bundle.',
}

export function startFailureText({ code, message }: OnecopyError): string {
  const remedy = REMEDIES[code] ?? 'docs/errors.md describes the error code.'
  return `onecopy: the server cannot start: ${message} (${code})\n${remedy}`
}
