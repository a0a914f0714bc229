/** The page at /docs and its script, out of Scalar's plugin, and our own documents as pages. */
import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { fastify } from 'fastify'
import { marked } from 'marked'
import { errorsPage } from '../../errors.ts'
import type { AssetContent } from './asset.ts'

const configuration = {
  title: 'Muster API',
  url: './openapi.json',
  withDefaultFonts: false,
  telemetry: false,
  showDeveloperTools: 'never',
  mcp: { disabled: true },
  hideClientButton: true,
  agent: { disabled: true },
}

let files: Promise<{ html: string; script: Buffer }> | undefined

/** The plugin serves its files as text that is converted for every request: they are taken out of it once. */
function scalarFiles(): Promise<{ html: string; script: Buffer }> {
  files ??= readScalarFiles()
  return files
}

async function readScalarFiles(): Promise<{ html: string; script: Buffer }> {
  const { default: scalar } = await import('@scalar/fastify-api-reference')
  const inner = fastify()
  await inner.register(scalar, { routePrefix: '/docs', configuration: configuration as never })
  const [html, script] = [await inner.inject('/docs/'), await inner.inject('/docs/js/scalar.js')]
  await inner.close()
  return { html: html.body, script: script.rawPayload }
}

export async function apiPage(): Promise<AssetContent> {
  const { html } = await scalarFiles()
  const inline = [...html.matchAll(/<script(?![^>]*\ssrc=)[^>]*>([\s\S]*?)<\/script>/g)].map(
    ([, text = '']) => `'sha256-${createHash('sha256').update(text).digest('base64')}'`,
  )
  return {
    type: 'text/html; charset=utf-8',
    body: html.replace(
      '<title>Scalar API Reference</title>',
      '<title>Muster API</title><link rel="icon" href="data:,">',
    ),
    contentSecurityPolicy: [
      "default-src 'none'",
      `script-src 'self' ${inline.join(' ')}`,
      "style-src 'self' 'unsafe-inline'",
      "img-src 'self' data: blob:",
      "font-src 'self' data:",
      "connect-src 'self'",
      "worker-src 'self' blob:",
      "base-uri 'none'",
      "form-action 'none'",
      "frame-ancestors 'none'",
    ].join('; '),
  }
}

export const apiScript = async (): Promise<AssetContent> => ({
  type: 'text/javascript; charset=utf-8',
  body: (await scalarFiles()).script,
})

const style =
  'body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}' +
  'table{border-collapse:collapse;display:block;overflow-x:auto}td,th{border:1px solid #8888;padding:.3rem .6rem;text-align:left;vertical-align:top}' +
  'code,pre{font-family:ui-monospace,monospace;font-size:.9em}pre{overflow-x:auto;padding:.6rem;border:1px solid #8888}'

/** A document of ours as a page: Markdown that came with this version, never somebody else's. */
export async function markdownPage(title: string, markdown: string): Promise<AssetContent> {
  const body = (await marked.parse(markdown)).replace(/href="(?:\.\/)?([a-z-]+)\.md(#[^"]*)?"/g, 'href="/docs/$1$2"')
  const nav = '<p><a href="/docs/">API</a> · <a href="/docs/errors">Errors</a></p>'
  return {
    type: 'text/html; charset=utf-8',
    body: `<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>${title} – Muster</title><style>${style}</style>${nav}${body}</html>`,
    contentSecurityPolicy: `default-src 'none'; style-src 'sha256-${createHash('sha256').update(style).digest('base64')}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`,
  }
}

export const errorsHtml = async (): Promise<AssetContent> => await markdownPage('Errors', errorsPage())

export const documentPage = async (name: string, file: string): Promise<AssetContent> =>
  await markdownPage(name, await readFile(file, 'utf8'))
