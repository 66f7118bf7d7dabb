/**
 * The memory sizes of a pod as a patch of deploy/kubernetes/base, printed by `onecopy inspect --kubernetes`.
 */
import type { PodMemory } from '../../src/sharing/pod-memory.js'
import { formatBytes } from '../../src/units.js'

const MEBIBYTE = 1024 * 1024

function mebibytes(bytes: number): string {
  return `${Math.ceil(bytes / MEBIBYTE)}Mi`
}

export function kubernetesSizes(name: string, pod: PodMemory): string {
  const { workers, model, sizeLimitBytes, memoryBytes, swapBytes, compileBytes } = pod
  const { segmentBytes, privateBytes, weightsBytes } = model
  const memory = mebibytes(memoryBytes)
  return `# ${JSON.stringify(name)}: ${formatBytes(weightsBytes)} of weights, a segment of ${formatBytes(segmentBytes)}, ${formatBytes(privateBytes)} more in every worker; ${workers} ${workers === 1 ? 'worker' : 'workers'}.
# A swap needs ${formatBytes(swapBytes)} for two generations, compilation during serving needs ${formatBytes(compileBytes)}: the larger plus 20%.
# A patch of deploy/kubernetes/base with one worker per CPU of the limit.
apiVersion: apps/v1
kind: Deployment
metadata:
  name: onecopy
spec:
  template:
    metadata:
      annotations:
        onecopy/segment-bytes: "${segmentBytes}"
        onecopy/weights-bytes: "${weightsBytes}"
        onecopy/worker-private-bytes: "${privateBytes}"
    spec:
      containers:
        - name: onecopy
          resources:
            requests:
              cpu: "${workers}"
              memory: ${memory}
            limits:
              cpu: "${workers}"
              memory: ${memory}
      volumes:
        - name: shm
          emptyDir:
            medium: Memory
            sizeLimit: ${mebibytes(sizeLimitBytes)}
`
}
