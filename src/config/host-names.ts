/** Addresses and host names as written in options and in Host headers. */
import { isIP, isIPv6 } from 'node:net'

const MAPPED_IPV4 = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i

/** Lower case, without the brackets of an IPv6 address and the final dot of a name. */
export function bareHost(host: string): string {
  return host
    .replace(/^\[(.*)\]$/, '$1')
    .replace(/\.$/, '')
    .toLowerCase()
}

/** The canonical form of an IPv6 address; other text is returned unchanged. */
function canonicalIpv6(address: string): string {
  const withoutZone = address.replace(/%.*$/, '')
  return URL.canParse(`http://[${withoutZone}]`)
    ? new URL(`http://[${withoutZone}]`).hostname.slice(1, -1)
    : address
}

/** Whether the host is loopback: 127.0.0.0/8, ::1, localhost and names below it (RFC 6761, 6.3). */
export function isLoopbackHost(host: string): boolean {
  const name = bareHost(host)
  if (name === 'localhost' || name.endsWith('.localhost')) return true
  if (isIPv6(name)) {
    const ipv4 = MAPPED_IPV4.exec(name)?.[1]
    if (ipv4 !== undefined) return isLoopbackHost(ipv4)
    const canonical = canonicalIpv6(name)
    const high = /^::ffff:([0-9a-f]{1,4}):[0-9a-f]{1,4}$/.exec(canonical)?.[1]
    return canonical === '::1' || high?.padStart(4, '0').startsWith('7f') === true
  }
  return isIP(name) === 4 && name.startsWith('127.')
}

/** The host as written in a URL, with brackets around IPv6. */
export function urlHost(host: string): string {
  return isIPv6(host) ? `[${host}]` : host
}
