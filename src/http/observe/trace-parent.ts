/**
 * The trace of a request, as its client declares it: https://www.w3.org/TR/trace-context/#traceparent-header
 */

const TRACE_PARENT_PATTERN =
  /^(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:$|-)/

/** Its id; undefined if the header is absent or invalid. */
export function traceIdOf(header: string | undefined): string | undefined {
  return header === undefined ? undefined : TRACE_PARENT_PATTERN.exec(header)?.[1]
}
