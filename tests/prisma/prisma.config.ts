// The command line wants a URL to generate a client, and connects to nothing.
export default { schema: "schema.prisma", datasource: { url: "postgres://nobody@127.0.0.1:1/none" } };
