from dagfs.cli.main import main

main()
