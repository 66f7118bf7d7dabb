/**
 * Headers that every answer carries. helmet decides what they say; they never change while a process serves, so
 * it is asked once, and a request costs no more than setting them. Routes may set others over them.
 */
import helmet from 'helmet'
import type { Context, Next } from 'koa'

const HSTS_SECONDS = 365 * 24 * 60 * 60

export function securityHeaders({ isTls }: { readonly isTls: boolean }): Readonly<Record<string, string>> {
  const headers: Record<string, string> = {
    // Answers belong to who asked.
    'Cache-Control': 'no-store',
  }
  const decide = helmet({
    // Nothing that is answered is a page.
    contentSecurityPolicy: {
      useDefaults: false,
      directives: { defaultSrc: ["'none'"], frameAncestors: ["'none'"] },
    },
    referrerPolicy: { policy: 'no-referrer' },
    xContentTypeOptions: true,
    // Other names of the domain are not this server's to decide over.
    strictTransportSecurity: isTls ? { maxAge: HSTS_SECONDS, includeSubDomains: false } : false,
    // For pages and their resources; frame-ancestors above says what X-Frame-Options would.
    crossOriginEmbedderPolicy: false,
    crossOriginOpenerPolicy: false,
    crossOriginResourcePolicy: false,
    originAgentCluster: false,
    xDnsPrefetchControl: false,
    xDownloadOptions: false,
    xFrameOptions: false,
    xPermittedCrossDomainPolicies: false,
    xXssProtection: false,
    xPoweredBy: false,
  })
  const response = {
    setHeader(name: string, value: string) {
      headers[name] = value
    },
  }
  // It looks at neither, and is done when it returns.
  decide(undefined as never, response as never, (error) => {
    if (error !== undefined) throw error
  })
  return Object.freeze(headers)
}

/** Outermost middleware: what a route sets afterwards wins. */
export function setHeaders(headers: Readonly<Record<string, string>>) {
  const pairs = Object.entries(headers)
  return (ctx: Context, next: Next): Promise<void> => {
    for (const [name, value] of pairs) ctx.res.setHeader(name, value)
    return next()
  }
}
