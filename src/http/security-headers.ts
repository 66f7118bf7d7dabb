/**
 * Headers of every response. helmet provides their values once, because they never change while a process
 * serves. Routes may override them.
 */
import helmet from 'helmet'
import type { Context, Next } from 'koa'

const HSTS_SECONDS = 365 * 24 * 60 * 60

export function securityHeaders({ isTls }: { readonly isTls: boolean }): Readonly<Record<string, string>> {
  const headers: Record<string, string> = {
    // Responses belong to one client.
    'Cache-Control': 'no-store',
  }
  const decide = helmet({
    // No response is a page.
    contentSecurityPolicy: {
      useDefaults: false,
      directives: { defaultSrc: ["'none'"], frameAncestors: ["'none'"] },
    },
    referrerPolicy: { policy: 'no-referrer' },
    xContentTypeOptions: true,
    // This server must not decide for other names of the domain.
    strictTransportSecurity: isTls ? { maxAge: HSTS_SECONDS, includeSubDomains: false } : false,
    // For pages and their resources; frame-ancestors above replaces X-Frame-Options.
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
  // helmet uses neither, and is synchronous.
  decide(undefined as never, response as never, (error) => {
    if (error !== undefined) throw error
  })
  return Object.freeze(headers)
}

/** Outermost middleware: headers that a route sets later take precedence. */
export function setHeaders(headers: Readonly<Record<string, string>>) {
  const pairs = Object.entries(headers)
  return (ctx: Context, next: Next): Promise<void> => {
    for (const [name, value] of pairs) ctx.res.setHeader(name, value)
    return next()
  }
}
