/** As much XML as EC2's replies need: elements, text and the five entities; no attributes but the namespace, no CDATA. */

export interface XmlNode {
  readonly name: string
  text: string
  children: XmlNode[]
}

/** Plain data to write as XML: an array becomes `<item>` elements, undefined is left out. */
export type XmlValue =
  | string
  | number
  | boolean
  | undefined
  | readonly XmlValue[]
  | { readonly [name: string]: XmlValue }

export function parseXml(source: string): XmlNode {
  const root: XmlNode = { name: '', text: '', children: [] }
  const open = [root]
  for (const [, closing, name = '', empty, text] of source.matchAll(/<(\/?)([\w:-]+)[^>]*?(\/?)>|([^<]+)|<\?[^>]*>/g)) {
    const parent = open.at(-1)
    if (parent === undefined) throw new Error('more elements closed than opened')
    if (text !== undefined) parent.text += decode(text)
    else if (closing === '/') open.pop()
    else if (name !== '') {
      const node: XmlNode = { name, text: '', children: [] }
      parent.children.push(node)
      if (empty !== '/') open.push(node)
    }
  }
  const top = root.children[0]
  if (top === undefined) throw new Error(`not XML: ${source.slice(0, 200)}`)
  return top
}

/** The first element on this path of names, if it is there. */
export function find(node: XmlNode | undefined, ...path: string[]): XmlNode | undefined {
  let found = node
  for (const name of path) found = found?.children.find(child => child.name === name)
  return found
}

export function textOf(node: XmlNode | undefined, ...path: string[]): string | undefined {
  return find(node, ...path)?.text
}

/** The `<item>` elements of a list on this path. */
export function itemsOf(node: XmlNode | undefined, ...path: string[]): XmlNode[] {
  return find(node, ...path)?.children.filter(({ name }) => name === 'item') ?? []
}

/** Writes a parsed reply again. */
export function printXml(node: XmlNode): string {
  const inside = node.children.length > 0 ? node.children.map(printXml).join('') : encode(node.text)
  return `<${node.name}>${inside}</${node.name}>`
}

/** The body of a reply of EC2. */
export function ec2Reply(action: string, value: { readonly [name: string]: XmlValue }): string {
  return xmlBody(`${action}Response`, write({ requestId: 'front', ...value }))
}

export function reprint(root: XmlNode): string {
  return xmlBody(root.name, root.children.map(printXml).join(''))
}

export function ec2Error(code: string, message: string): string {
  return xmlBody('Response', write({ Errors: { Error: { Code: code, Message: message } }, RequestID: 'front' }))
}

const xmlBody = (name: string, inside: string): string =>
  `<?xml version="1.0" encoding="utf-8"?>\n<${name} xmlns="http://ec2.amazonaws.com/doc/2016-11-15">${inside}</${name}>`

function write(value: XmlValue): string {
  if (value === undefined) return ''
  if (Array.isArray(value)) return value.map(item => `<item>${write(item)}</item>`).join('')
  if (typeof value !== 'object') return encode(String(value))
  return Object.entries(value)
    .map(([name, inner]) => (inner === undefined ? '' : `<${name}>${write(inner)}</${name}>`))
    .join('')
}

const entities: Readonly<Record<string, string>> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" }

function decode(text: string): string {
  return text.replaceAll(/&(#x[\da-f]+|#\d+|\w+);/gi, (whole, entity: string) => {
    if (!entity.startsWith('#')) return entities[entity] ?? whole
    const hex = entity[1] === 'x' || entity[1] === 'X'
    return String.fromCodePoint(Number.parseInt(entity.slice(hex ? 2 : 1), hex ? 16 : 10))
  })
}

const encode = (text: string): string =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;')
